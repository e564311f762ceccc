import type { SamplingParams } from "../core/sampling-params.js";
import { UniformSource } from "./uniform-source.js";

/** What the sampler must remember of one sequence: which ids occurred, how often, and its random numbers. */
export class SamplingHistory {
  /** Times each id was generated. V */
  readonly counts: Uint32Array;
  /** 1 for ids that occur in the prompt or the output; filled only when the repetition penalty is on. V */
  readonly seen: Uint8Array;
  readonly uniforms: UniformSource;
  /** Ids outside the request's `allowedIds`. */
  readonly disallowedIds: readonly number[];
  #numGenerated = 0;

  constructor(
    readonly params: SamplingParams,
    vocabularySize: number,
    prompt: Uint16Array,
    /** Ids of what came before the prompt, as `seen`. */
    before?: Uint8Array,
  ) {
    this.counts = new Uint32Array(vocabularySize);
    this.seen = new Uint8Array(vocabularySize);
    this.uniforms = new UniformSource(params.seed);
    this.disallowedIds = complement(params.allowedIds, vocabularySize);
    if (params.repetitionPenalty === 1) return;
    if (before !== undefined) this.seen.set(before);
    for (const id of prompt) this.seen[id] = 1;
  }

  /** Ids generated so far; also the index of the next uniform. */
  get numGenerated(): number {
    return this.#numGenerated;
  }

  record(id: number): void {
    this.counts[id]!++;
    this.seen[id] = 1;
    this.#numGenerated++;
  }
}

function complement(ids: readonly number[] | undefined, vocabularySize: number): number[] {
  if (ids === undefined) return [];
  const allowed = new Set(ids);
  return Array.from({ length: vocabularySize }, (_, id) => id).filter((id) => !allowed.has(id));
}
