import type { GenerationEvent } from "../core/generation-event.js";
import { FEED_ONLY, type GenerationRequest } from "../core/generation-request.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { reasonOf } from "../core/stopping.js";
import { MblmError } from "../errors.js";
import type { EngineClient } from "../worker/engine-client-interface.js";

type FeedingEvent = Exclude<GenerationEvent, { type: "failed" }>;

/** What is asked of the engine for every piece of one stream of bytes. */
export type PieceRequest = Pick<
  GenerationRequest,
  "id" | "priority" | "cacheSalt" | "promptScoring" | "isPartOfLong" | "waitsForRoom"
>;

/**
 * Feeds one piece of a stream of bytes; yields what the engine says, at last the end, which has the state.
 *
 * @param resume what the piece follows
 * @throws MblmError when it is refused, when the engine fails, or the reason of the signal
 */
export async function* feedPiece(
  engine: EngineClient,
  piece: PieceRequest,
  prompt: Uint16Array,
  resume: SequenceState | undefined,
  signal: AbortSignal,
): AsyncGenerator<FeedingEvent> {
  const request = { ...piece, prompt, ...FEED_ONLY, returnState: true, ...(resume === undefined ? {} : { resume }) };
  for await (const event of engine.submit(request, signal)) {
    if (event.type === "failed") throw new MblmError(event.code, event.message);
    if (event.type === "finished" && event.reason === "abort") throw reasonOf(signal);
    yield event;
  }
}
