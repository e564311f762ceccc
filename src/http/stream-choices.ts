import type { Usage } from "../core/generation-event.js";
import { MblmError } from "../errors.js";
import { errorBody } from "./error-response.js";
import type { SseWriter } from "./sse-writer.js";
import { usageBody } from "./wire.js";

/** What any kind of piece has. */
interface Piece {
  readonly text: string;
  readonly ids: Uint16Array;
  readonly finishReason: string | null;
  readonly usage: Usage | undefined;
}

export interface StreamOptions<P extends Piece> {
  /** What every chunk begins with. */
  readonly head: object;
  /** One choice's pieces as one. */
  readonly merge: (pieces: readonly P[]) => P;
  /** The choice as a chunk shows it; called once per chunk, in order. */
  readonly toChoice: (piece: P) => object;
  /** Least ids per chunk but the first and the last. */
  readonly interval: number;
  /** Whether a chunk is worth sending when it has no text. */
  readonly showsIds: boolean;
  readonly wantsUsage: boolean;
  /** Choices per prompt. */
  readonly size: number;
}

/** Writes all choices as they come, then the usage. A failure is the stream's last word before [DONE]. */
export async function streamChoices<P extends Piece>(
  writer: SseWriter,
  choices: readonly AsyncIterable<P>[],
  options: StreamOptions<P>,
  controller: AbortController,
): Promise<void> {
  const { head, wantsUsage } = options;
  const usages: Usage[] = [];
  const send = (choice: object): Promise<void> =>
    writer.send({ ...head, choices: [choice], ...(wantsUsage ? { usage: null } : {}) });
  const pump = async (pieces: AsyncIterable<P>, index: number): Promise<void> => {
    for await (const piece of chunked(pieces, options)) {
      if (piece.usage) usages[index] = piece.usage;
      await send(options.toChoice(piece));
    }
  };
  try {
    await Promise.all(choices.map(pump));
    if (wantsUsage) await writer.send({ ...head, choices: [], usage: usageBody(usages, options.size) });
  } catch (thrown) {
    if (!controller.signal.aborted) {
      const error = MblmError.from(thrown);
      await writer.send(errorBody(error.code, error.message, error.field ?? null)).catch(() => {});
    }
    controller.abort();
  } finally {
    writer.end();
  }
}

/** Pieces of at least `interval` ids; the first and the last go out at once, and none that has nothing to say. */
async function* chunked<P extends Piece>(pieces: AsyncIterable<P>, options: StreamOptions<P>): AsyncGenerator<P> {
  let held: P[] = [];
  let isFirst = true;
  for await (const piece of pieces) {
    held.push(piece);
    const numIds = held.reduce((sum, { ids }) => sum + ids.length, 0);
    const isDue = isFirst || piece.finishReason !== null || numIds >= options.interval;
    // Bytes that all wait for the rest of their character have nothing to say unless ids are asked for.
    const isSilent = piece.finishReason === null && !options.showsIds && held.every(({ text }) => text === "");
    if (!isDue || isSilent) continue;
    yield options.merge(held);
    held = [];
    isFirst = false;
  }
}
