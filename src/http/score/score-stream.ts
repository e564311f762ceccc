import { setTimeout } from "node:timers/promises";
import type { GenerationEvent, PromptScores } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import { GREEDY } from "../../core/sampling-params.js";
import type { SequenceState } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";

const RETRY_MILLISECONDS = 100;

export interface ScoreOptions {
  readonly id: string;
  readonly entropy: boolean;
  readonly priority: number;
}

/**
 * Scores a stream of bytes piece by piece. Between pieces the sequence's state is here and no slot is held, so that a slow
 * sender costs nothing; a piece begins at the last patch border of the one before.
 *
 * @throws MblmError when the first piece is refused, or the engine fails; later pieces wait for room
 */
export async function* scoreStream(
  engine: EngineClient,
  pieces: AsyncIterable<Uint8Array>,
  options: ScoreOptions,
  signal: AbortSignal,
): AsyncGenerator<PromptScores> {
  let state: SequenceState | undefined;
  for await (const piece of pieces) {
    const request = toRequest(Uint16Array.from(piece), state, options);
    const isFirst = state === undefined;
    for await (const event of submitPatiently(engine, request, isFirst, signal)) {
      if (event.type === "prompt") yield event.scores;
      if (event.type === "failed") throw new MblmError(event.code, event.message);
      if (event.type !== "finished") continue;
      if (event.reason === "abort") throw new MblmError("aborted", "The request was cancelled.");
      state = event.state;
    }
  }
}

function toRequest(
  prompt: Uint16Array,
  state: SequenceState | undefined,
  { id, entropy, priority }: ScoreOptions,
): GenerationRequest {
  return {
    id,
    prompt,
    priority,
    sampling: GREEDY,
    stop: {
      maxNewBytes: 0,
      minNewBytes: 0,
      stopSequences: [],
      stopIds: [],
      ignoreEos: true,
      includeStop: false,
    },
    promptScoring: { numTop: 0, entropy },
    returnState: true,
    ...(state === undefined ? {} : { resume: state }),
  };
}

/** Work that has begun is not refused half-way: when the queue is full, a later piece waits. */
async function* submitPatiently(
  engine: EngineClient,
  request: GenerationRequest,
  isFirst: boolean,
  signal: AbortSignal,
): AsyncGenerator<GenerationEvent> {
  for (;;) {
    try {
      yield* engine.submit(request, signal);
      return;
    } catch (thrown) {
      if (isFirst || !(thrown instanceof MblmError) || thrown.code !== "overloaded") throw thrown;
      await setTimeout(RETRY_MILLISECONDS, undefined, { signal });
    }
  }
}
