import type { SamplingHistory } from "./sampling-history.js";

/** Whether any rule below would change a score, so that the caller may read the logits as they are. */
export function needsAdjustment(history: SamplingHistory, bannedIds: readonly number[]): boolean {
  const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = history.params;
  return (
    bannedIds.length > 0 ||
    history.disallowedIds.length > 0 ||
    logitBias.size > 0 ||
    repetitionPenalty !== 1 ||
    presencePenalty !== 0 ||
    frequencyPenalty !== 0
  );
}

/**
 * Applies, in this order and in place:
 * 1. logit bias: added;
 * 2. repetition penalty, ids of prompt and output: positive scores divided, others multiplied by it;
 * 3. presence and frequency penalty, ids of the output: subtracted once, and once per occurrence;
 * 4. banned ids, and those that the request does not allow: −∞.
 */
export function adjustScores(scores: Float64Array, history: SamplingHistory, bannedIds: readonly number[]): void {
  for (const [id, bias] of history.params.logitBias) scores[id]! += bias;
  penaliseRepetition(scores, history);
  penaliseOccurrence(scores, history);
  for (const id of history.disallowedIds) scores[id] = -Infinity;
  for (const id of bannedIds) scores[id] = -Infinity;
}

function penaliseRepetition(scores: Float64Array, history: SamplingHistory): void {
  const penalty = history.params.repetitionPenalty;
  if (penalty === 1) return;
  for (let id = 0; id < scores.length; id++) {
    if (history.seen[id] === 0) continue;
    const score = scores[id]!;
    scores[id] = score > 0 ? score / penalty : score * penalty;
  }
}

function penaliseOccurrence(scores: Float64Array, history: SamplingHistory): void {
  const { presencePenalty, frequencyPenalty } = history.params;
  if (presencePenalty === 0 && frequencyPenalty === 0) return;
  for (let id = 0; id < scores.length; id++) {
    const count = history.counts[id]!;
    if (count > 0) scores[id]! -= presencePenalty + frequencyPenalty * count;
  }
}
