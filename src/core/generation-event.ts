import type { ErrorCode } from "../errors.js";
import type { SequenceState } from "./state-snapshot.js";

/** `stop`: a stop sequence, stop id or the model's end id; `length`: maxNewBytes or the model's hard context limit. */
export type FinishReason = "stop" | "length" | "abort";

export interface Usage {
  readonly promptBytes: number;
  readonly generatedBytes: number;
  /** Prompt bytes whose state was reused from the prefix cache instead of computed. */
  readonly cachedBytes: number;
}

/** Durations in seconds, measured in the engine. */
export interface Timings {
  readonly queueSeconds: number;
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  /** Calls of the model that fed the prompt; its last, unfinished step is not among them. */
  readonly prefillChunks: number;
}

/** Log-probabilities of one generated id, before temperature, penalties and filters (the model's own distribution). */
export interface ByteLogprobs {
  readonly logprob: number;
  /** Most likely alternatives, best first. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/**
 * Scores of consecutive prompt ids under the model's own distribution: log-probabilities in nats, each given all ids
 * before it. The very first id of a sequence is scored as in training, by the start token without any context.
 */
export interface PromptScores {
  /** One per id. */
  readonly logprobs: Float64Array;
  /** Entropy of the distribution that each id was drawn from, in nats; when asked for. */
  readonly entropies?: Float64Array;
  /** Most likely ids at each position, best first; when asked for. */
  readonly top?: readonly ByteLogprobs["top"][];
}

/** What the engine says of one request, in order. Exactly one terminal event (`finished` or `failed`) ends it. */
export type GenerationEvent =
  | { readonly type: "started"; readonly promptBytes: number }
  /** Scores of the next prompt ids, when the request asked for them; all come before the first `bytes`. */
  | { readonly type: "prompt"; readonly scores: PromptScores }
  | {
      readonly type: "bytes";
      /** Generated ids that can no longer become part of a hidden stop sequence. */
      readonly ids: Uint16Array;
      /** One per id when the request asked for log-probs. */
      readonly logprobs?: readonly ByteLogprobs[];
    }
  /** The state so far, at the request's `checkpointEvery`. */
  | {
      readonly type: "checkpoint";
      readonly state: SequenceState;
      /** Latest ids of the state that were not handed out: they may become part of a stop sequence. */
      readonly held: Uint16Array;
    }
  | {
      readonly type: "finished";
      readonly reason: FinishReason;
      /** The stop sequence or stop id that matched. */
      readonly matchedStop?: Uint8Array | number;
      /** What the sequence has come to, when the request asked for it; absent for an empty sequence. */
      readonly state?: SequenceState;
      /** Of an abort: latest ids handed out that would have waited, because they could become part of a stop sequence. */
      readonly numHeld?: number;
      readonly usage: Usage;
      readonly timings: Timings;
    }
  | { readonly type: "failed"; readonly code: ErrorCode; readonly message: string };
