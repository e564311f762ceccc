import type { SamplingParams } from "../core/sampling-params.js";
import { MblmError } from "../errors.js";
import { LikelihoodHeap } from "./likelihood-heap.js";
import type { SamplingHistory } from "./sampling-history.js";
import { adjustScores, needsAdjustment } from "./score-adjustments.js";

/** Sets the scores of ids that must not come next to −∞; never all of them. */
export interface ScoreMask {
  apply(scores: Float64Array): void;
}

/**
 * Chooses the next id from one row of logits. The rule, all in float64:
 *
 * 1. scores = logits, adjusted by bias, penalties and banned ids (see `adjustScores`), then the mask;
 * 2. temperature 0: the id with the highest score, the lowest such id on a tie, and nothing below applies;
 * 3. weights = exp((score − highest score) / temperature);
 * 4. top-k: keep the k heaviest ids (on a tie the lower ids);
 * 5. top-p: of those, the shortest run of heaviest ids whose share of the kept weight reaches p, at least one;
 * 6. min-p: of those, the ids whose weight is at least minP times the heaviest;
 * 7. with u the uniform of this position, the first id, ascending, whose cumulated weight exceeds u × (sum of weights).
 *
 * One sampler serves all sequences of an engine: it owns scratch memory only and allocates nothing per byte.
 */
export class Sampler {
  readonly #vocabularySize: number;
  readonly #scores: Float64Array; // V
  readonly #weights: Float64Array; // V; 0 = filtered out
  readonly #kept: Uint8Array; // V
  readonly #heap: LikelihoodHeap;

  constructor(vocabularySize: number) {
    this.#vocabularySize = vocabularySize;
    this.#scores = new Float64Array(vocabularySize);
    this.#weights = new Float64Array(vocabularySize);
    this.#kept = new Uint8Array(vocabularySize);
    this.#heap = new LikelihoodHeap(vocabularySize);
  }

  /**
   * @param logits rows of V logits
   * @param offset start of the sequence's row in `logits`
   * @param bannedIds ids that must not be chosen; never all of them
   * @param mask bans more ids
   * @throws MblmError `engine_failed` when the row holds a NaN or no finite maximum
   */
  sample(
    logits: Float32Array,
    offset: number,
    history: SamplingHistory,
    bannedIds: readonly number[] = [],
    mask?: ScoreMask,
  ): number {
    const scores = this.#scores;
    for (let id = 0; id < this.#vocabularySize; id++) scores[id] = logits[offset + id]!;
    if (needsAdjustment(history, bannedIds)) adjustScores(scores, history, bannedIds);
    mask?.apply(scores);
    const best = highest(scores);
    const { params } = history;
    if (params.temperature === 0) return best;

    this.#computeWeights(scores[best]!, params.temperature);
    if (isFiltered(params)) this.#filter(params, best);
    return this.#invert(history.uniforms.at(history.numGenerated));
  }

  #computeWeights(maximum: number, temperature: number): void {
    for (let id = 0; id < this.#vocabularySize; id++) {
      this.#weights[id] = Math.exp((this.#scores[id]! - maximum) / temperature);
    }
  }

  #filter(params: SamplingParams, best: number): void {
    const weights = this.#weights;
    const k = params.topK === 0 ? weights.length : Math.min(params.topK, weights.length);
    if (k < weights.length) this.#keepHeaviest(k);
    if (params.topP < 1) this.#keepHeaviest(k, params.topP * sum(weights));
    if (params.minP === 0) return;
    const threshold = params.minP * weights[best]!;
    for (let id = 0; id < weights.length; id++) if (weights[id]! < threshold) weights[id] = 0;
  }

  /** Zeroes the weight of every id but the heaviest, of which it keeps at most `k` and stops once they reach `target`. */
  #keepHeaviest(k: number, target = Infinity): void {
    const weights = this.#weights;
    this.#heap.fill(weights);
    this.#kept.fill(0);
    let reached = 0;
    for (let taken = 0; taken < k && reached < target; taken++) {
      const id = this.#heap.pop();
      this.#kept[id] = 1;
      reached += weights[id]!;
    }
    for (let id = 0; id < weights.length; id++) if (this.#kept[id] === 0) weights[id] = 0;
  }

  /** Inverse of the cumulative distribution of the weights at `uniform`. */
  #invert(uniform: number): number {
    const weights = this.#weights;
    const target = uniform * sum(weights);
    let cumulated = 0;
    let last = 0;
    for (let id = 0; id < weights.length; id++) {
      if (weights[id] === 0) continue;
      cumulated += weights[id]!;
      if (cumulated > target) return id;
      last = id;
    }
    return last; // rounding left the sum at the target
  }
}

function isFiltered(params: SamplingParams): boolean {
  return params.topK > 0 || params.topP < 1 || params.minP > 0;
}

function sum(values: Float64Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** Index of the highest score, the lowest index on a tie. */
function highest(scores: Float64Array): number {
  let best = 0;
  let hasNaN = false;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!;
    if (score > scores[best]!) best = id;
    else if (Number.isNaN(score)) hasNaN = true;
  }
  if (hasNaN || !Number.isFinite(scores[best]!))
    throw new MblmError("engine_failed", "The model gave logits that are not finite.");
  return best;
}
