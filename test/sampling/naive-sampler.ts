import type { SamplingParams } from "../../src/core/sampling-params.js";

export interface NaiveInput {
  readonly logits: readonly number[];
  readonly params: SamplingParams;
  readonly prompt: readonly number[];
  readonly output: readonly number[];
  readonly bannedIds: readonly number[];
  readonly uniform: number;
}

/** The documented rule written for the eye: sorted lists of candidates, nothing reused. */
export function sampleNaively({ logits, params, prompt, output, bannedIds, uniform }: NaiveInput): number {
  const scores = logits.map((logit, id) => {
    if (bannedIds.includes(id)) return -Infinity;
    let score = logit + (params.logitBias.get(id) ?? 0);
    if (prompt.includes(id) || output.includes(id)) {
      score = score > 0 ? score / params.repetitionPenalty : score * params.repetitionPenalty;
    }
    const count = output.filter((other) => other === id).length;
    return count > 0 ? score - (params.presencePenalty + params.frequencyPenalty * count) : score;
  });
  const maximum = Math.max(...scores);
  if (params.temperature === 0) return scores.indexOf(maximum);

  const byWeight = scores
    .map((score, id) => ({ id, weight: Math.exp((score - maximum) / params.temperature) }))
    .sort((a, b) => b.weight - a.weight || a.id - b.id);
  const topK = params.topK === 0 ? byWeight : byWeight.slice(0, params.topK);
  const total = sumById(topK);
  let reached = 0;
  const topP = topK.filter(({ weight }) => {
    const isKept = params.topP === 1 || reached < params.topP * total;
    reached += weight;
    return isKept;
  });
  const kept = topP.filter(({ weight }) => weight >= params.minP * topP[0]!.weight && weight > 0);
  const target = uniform * sumById(kept);
  const byId = kept.toSorted((a, b) => a.id - b.id);
  let cumulated = 0;
  for (const { id, weight } of byId) {
    cumulated += weight;
    if (cumulated > target) return id;
  }
  return byId.at(-1)!.id;
}

function sumById(candidates: readonly { id: number; weight: number }[]): number {
  return candidates.toSorted((a, b) => a.id - b.id).reduce((total, { weight }) => total + weight, 0);
}
