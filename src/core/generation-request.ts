import type { SamplingParams } from "./sampling-params.js";

/** When a generation ends. */
export interface StopConditions {
  /** Upper bound on generated ids, ≥ 0. */
  readonly maxNewBytes: number;
  /** No stop condition but `maxNewBytes` applies before this many ids; end ids are not sampled until then. */
  readonly minNewBytes: number;
  /** Generation ends as soon as the output ends with one of these; each is non-empty. */
  readonly stopSequences: readonly Uint8Array[];
  /** Generation ends when one of these ids is sampled (the bundle's end id is added by the engine unless `ignoreEos`). */
  readonly stopIds: readonly number[];
  readonly ignoreEos: boolean;
  /** Whether the matched stop sequence (or stop id, when it is a byte) is part of the output. */
  readonly includeStop: boolean;
}

/** One generation, fully resolved and checked at the edge; never JSON again after that. */
export interface GenerationRequest {
  readonly id: string;
  /** Prompt ids: bytes 0–255 and the bundle's special ids; may be empty. */
  readonly prompt: Uint16Array;
  readonly sampling: SamplingParams;
  readonly stop: StopConditions;
  /** Number of alternatives reported beside each generated id; undefined = no log-probs at all. Range 0–20. */
  readonly numLogprobs?: number;
}
