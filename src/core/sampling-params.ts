/** How the next byte is chosen. Every field is resolved: the edge applies defaults and checks bounds. */
export interface SamplingParams {
  /** 0 = greedy; otherwise logits are divided by it. Range [0, 2]. */
  readonly temperature: number;
  /** Keep the k most likely ids; 0 keeps all. */
  readonly topK: number;
  /** Keep the smallest set of most likely ids whose probability reaches this. Range (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** Keep ids whose probability is at least this fraction of the largest. Range [0, 1]; 0 keeps all. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of ids seen in prompt or output. Range [0.01, 10]; 1 = off. */
  readonly repetitionPenalty: number;
  /** Subtracted from the logits of ids already generated. Range [-2, 2]. */
  readonly presencePenalty: number;
  /** Subtracted once per earlier generation of the id. Range [-2, 2]. */
  readonly frequencyPenalty: number;
  /** Added to the logits of the given ids. Values in [-100, 100]. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** The only ids that may be generated, at least one; undefined allows all. */
  readonly allowedIds?: readonly number[];
  /** Unsigned 64-bit seed; the same seed gives the same bytes whatever else runs. */
  readonly seed: bigint;
}

export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  seed: 0n,
};
