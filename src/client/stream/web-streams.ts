import type { ByteStream } from "./byte-stream.js";
import type { Generation } from "./generation.js";
import type { StreamGeneration } from "./stream-options.js";

/** Both ends of a stream, as `pipeThrough` takes them. */
export interface BytePair {
  readonly writable: WritableStream<Uint8Array | string>;
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
}

/**
 * The stream as web streams: what is written is pushed; when the writing end closes, the generation begins, whose bytes
 * are read. Cancelling the reading end cancels it.
 */
export function toWebStreams(stream: ByteStream, options: StreamGeneration = {}): BytePair {
  let generation: Generation | undefined;
  let pieces: AsyncGenerator<Uint8Array<ArrayBuffer>> | undefined;
  let isCancelled = false;
  let begin = (): void => {};
  let refuse = (_: unknown): void => {};
  const begun = new Promise<void>((resolve, reject) => {
    begin = resolve;
    refuse = reject;
  });
  begun.catch(() => {}); // whoever reads learns it
  const writable = new WritableStream<Uint8Array | string>({
    write: (chunk) => stream.push(chunk),
    close() {
      if (isCancelled) return;
      generation = stream.generate(options);
      pieces = generation[Symbol.asyncIterator]();
      begin();
    },
    abort: (reason) => refuse(reason),
  });
  const readable = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        await begun;
        const { done, value } = await pieces!.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel() {
        isCancelled = true;
        generation?.cancel();
        void pieces?.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
  return { writable, readable };
}
