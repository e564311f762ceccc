import type { GenerationRequest, StopConditions } from "../../src/core/generation-request.js";
import { GREEDY, type SamplingParams } from "../../src/core/sampling-params.js";

export interface RequestFields {
  readonly prompt?: string | Uint16Array;
  readonly sampling?: Partial<SamplingParams>;
  readonly stop?: Partial<StopConditions>;
  readonly numLogprobs?: number;
  /** Any other field. */
  readonly more?: Partial<GenerationRequest>;
}

let numRequests = 0;

/** A request for 8 greedy bytes after "hello", changed as asked. */
export function makeRequest(fields: RequestFields = {}): GenerationRequest {
  const { prompt = "hello", sampling, stop, numLogprobs, more } = fields;
  return {
    id: `request-${numRequests++}`,
    prompt: typeof prompt === "string" ? Uint16Array.from(Buffer.from(prompt)) : prompt,
    sampling: { ...GREEDY, ...sampling },
    stop: {
      maxNewBytes: 8,
      minNewBytes: 0,
      stopSequences: [],
      stopIds: [],
      ignoreEos: false,
      includeStop: false,
      ...stop,
    },
    ...(numLogprobs === undefined ? {} : { numLogprobs }),
    ...more,
  };
}

/** Deterministic pseudo-random integers for test data. */
export function makeRandom(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}
