import type { PromptScores } from "../core/generation-event.js";
import type { PromptScoring } from "../core/generation-request.js";
import type { SequenceState } from "../core/state-snapshot.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import { feedPiece } from "./feed-piece.js";

/** Bytes that are fed as one request of the engine. */
export const PIECE_BYTES = 65_536;

export interface FeedOptions {
  readonly id: string;
  readonly priority: number;
  /** What the bytes follow. */
  readonly resume?: SequenceState | undefined;
  /** Whether the first piece, too, waits for room instead of being refused. */
  readonly isPatient?: boolean;
  /** Whether and how they are scored. */
  readonly scoring?: PromptScoring;
  /** Told of the bytes of each piece that was fed. */
  readonly onFed?: (numBytes: number) => void;
}

/**
 * Feeds a stream of bytes piece by piece; yields their scores and returns the state they lead to, undefined for no bytes at
 * all. Between pieces the state is here and no slot is held, so that a slow sender costs nothing.
 *
 * @throws MblmError when the first piece is refused, or the engine fails; later pieces (or all, if patient) wait for room
 */
export async function* feedPieces(
  engine: EngineClient,
  pieces: AsyncIterable<Uint8Array>,
  options: FeedOptions,
  signal: AbortSignal,
): AsyncGenerator<PromptScores, SequenceState | undefined> {
  const { id, priority, scoring } = options;
  const request = { id, priority, ...(scoring === undefined ? {} : { promptScoring: scoring }) };
  let state = options.resume;
  let waitsForRoom = options.isPatient === true;
  for await (const piece of pieces) {
    for await (const event of feedPiece(engine, { ...request, waitsForRoom }, new Uint16Array(piece), state, signal)) {
      if (event.type === "prompt") yield event.scores;
      if (event.type === "finished") state = event.state;
    }
    options.onFed?.(piece.length);
    waitsForRoom = true;
  }
  return state;
}
