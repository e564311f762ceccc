import type { ByteLogprobs } from "../core/generation-event.js";

/** ln Σ exp(logits) of one row of `vocabularySize` logits, in float64. */
function logSumExp(logits: Float32Array, offset: number, vocabularySize: number): number {
  let maximum = -Infinity;
  for (let id = 0; id < vocabularySize; id++) maximum = Math.max(maximum, logits[offset + id]!);
  let total = 0;
  for (let id = 0; id < vocabularySize; id++) total += Math.exp(logits[offset + id]! - maximum);
  return maximum + Math.log(total);
}

/**
 * Log-probabilities (natural logarithm) of a chosen id and its `numTop` most likely rivals in the model's own
 * distribution: bias, penalties, temperature and filters have no part in it. Equal ones are listed by ascending id.
 */
export function computeLogprobs(
  logits: Float32Array,
  offset: number,
  vocabularySize: number,
  chosenId: number,
  numTop: number,
): ByteLogprobs {
  const normaliser = logSumExp(logits, offset, vocabularySize);
  const ids = mostLikely(logits, offset, vocabularySize, numTop);
  return {
    logprob: logits[offset + chosenId]! - normaliser,
    top: ids.map((id) => ({ id, logprob: logits[offset + id]! - normaliser })),
  };
}

/** Entropy of the model's own distribution, in nats. */
export function computeEntropy(logits: Float32Array, offset: number, vocabularySize: number): number {
  const normaliser = logSumExp(logits, offset, vocabularySize);
  let entropy = 0;
  for (let id = 0; id < vocabularySize; id++) {
    const logprob = logits[offset + id]! - normaliser;
    const probability = Math.exp(logprob);
    if (probability > 0) entropy -= probability * logprob;
  }
  return entropy;
}

/** The `count` ids with the highest logits, best first: insertion into a short sorted list. */
function mostLikely(logits: Float32Array, offset: number, vocabularySize: number, count: number): number[] {
  const best: number[] = [];
  if (count === 0) return best;
  for (let id = 0; id < vocabularySize; id++) {
    const logit = logits[offset + id]!;
    if (best.length === count && !(logit > logits[offset + best[count - 1]!]!)) continue;
    let place = best.length === count ? count - 1 : best.length;
    for (; place > 0 && logit > logits[offset + best[place - 1]!]!; place--) best[place] = best[place - 1]!;
    best[place] = id;
  }
  return best;
}
