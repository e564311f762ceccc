import type { ErrorCode } from "../errors.js";

/** `stop`: a stop sequence, stop id or the model's end id; `length`: maxNewBytes or the model's hard context limit. */
export type FinishReason = "stop" | "length" | "abort";

export interface Usage {
  readonly promptBytes: number;
  readonly generatedBytes: number;
  /** Prompt bytes whose state was reused instead of computed. */
  readonly cachedBytes: number;
}

/** Durations in seconds, measured in the engine. */
export interface Timings {
  readonly queueSeconds: number;
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
}

/** Log-probabilities of one generated id, before temperature, penalties and filters (the model's own distribution). */
export interface ByteLogprobs {
  readonly logprob: number;
  /** Most likely alternatives, best first. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** What the engine says of one request, in order. Exactly one terminal event (`finished` or `failed`) ends it. */
export type GenerationEvent =
  | { readonly type: "started"; readonly promptBytes: number; readonly cachedBytes: number }
  | {
      readonly type: "bytes";
      /** Generated ids that can no longer become part of a hidden stop sequence. */
      readonly ids: Uint16Array;
      /** One per id when the request asked for log-probs. */
      readonly logprobs?: readonly ByteLogprobs[];
    }
  | {
      readonly type: "finished";
      readonly reason: FinishReason;
      /** The stop sequence or stop id that matched. */
      readonly matchedStop?: Uint8Array | number;
      readonly usage: Usage;
      readonly timings: Timings;
    }
  | { readonly type: "failed"; readonly code: ErrorCode; readonly message: string };
