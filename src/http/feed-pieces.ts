import type { PromptScores } from "../core/generation-event.js";
import { FEED_ONLY, type GenerationRequest, type PromptScoring } from "../core/generation-request.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import { submitPatiently } from "./submit-patiently.js";

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
  let state = options.resume;
  let isFirst = true;
  for await (const piece of pieces) {
    const request = toRequest(new Uint16Array(piece), state, options);
    for await (const event of submitPatiently(engine, request, isFirst && !options.isPatient, signal)) {
      if (event.type === "prompt") yield event.scores;
      if (event.type === "failed") throw new MblmError(event.code, event.message);
      if (event.type !== "finished") continue;
      if (event.reason === "abort") throw new MblmError("aborted", "The request was cancelled.");
      state = event.state;
    }
    options.onFed?.(request.prompt.length);
    isFirst = false;
  }
  return state;
}

function toRequest(
  prompt: Uint16Array,
  state: SequenceState | undefined,
  { id, priority, scoring }: FeedOptions,
): GenerationRequest {
  return {
    id,
    prompt,
    priority,
    ...FEED_ONLY,
    returnState: true,
    ...(scoring === undefined ? {} : { promptScoring: scoring }),
    ...(state === undefined ? {} : { resume: state }),
  };
}
