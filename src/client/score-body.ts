import type { ScoreSource } from "./score.js";
import type { Call } from "./transport.js";

type Streamed = ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;
type Pieces = Pick<AsyncIterator<Uint8Array, unknown>, "next" | "return">;

/**
 * A source as a request's body.
 *
 * @throws TypeError when it is none
 */
export function toScoreBody(source: ScoreSource): Pick<Call, "body" | "openBody"> {
  if (source instanceof Uint8Array || source instanceof ArrayBuffer || source instanceof Blob) return { body: source };
  if (source instanceof ReadableStream || (typeof source === "object" && Symbol.asyncIterator in source)) {
    return { openBody: (signal) => openStream(source, signal) };
  }
  throw new TypeError("the bytes must be a Uint8Array, ArrayBuffer, Blob, ReadableStream or AsyncIterable");
}

/**
 * A stream that reads the source as fast as it is sent, and lets go of it when the call ends, however it does: Node's fetch
 * forgets to cancel what it was sending when it is aborted.
 */
function openStream(source: Streamed, signal: AbortSignal): ReadableStream<Uint8Array> {
  const pieces = toPieces(source);
  const release = async (): Promise<void> => {
    await pieces.return?.();
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller: ReadableStreamDefaultController<Uint8Array>): void {
        const stop = (): void => {
          controller.error(signal.reason);
          void release().catch(() => {});
        };
        signal.addEventListener("abort", stop, { once: true });
      },
      async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
        const { done, value } = await pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: release,
    },
    { highWaterMark: 0 },
  );
}

/** Not every ReadableStream is iterable, and an iteration cannot be ended while a piece is awaited: a reader can. */
function toPieces(source: Streamed): Pieces {
  if (!(source instanceof ReadableStream)) return source[Symbol.asyncIterator]();
  const reader = source.getReader();
  return {
    next: () => reader.read() as Promise<IteratorResult<Uint8Array, undefined>>,
    return: async () => {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
}
