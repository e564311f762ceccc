import type { PromptScores } from "../../core/generation-event.js";

/** Totals over any number of scores. */
export class ScoreSummary {
  #numBytes = 0;
  #totalLogprob = 0;
  #totalEntropy: number | undefined;

  add({ logprobs, entropies }: PromptScores): void {
    this.#numBytes += logprobs.length;
    for (const logprob of logprobs) this.#totalLogprob += logprob;
    if (entropies === undefined) return;
    this.#totalEntropy ??= 0;
    for (const entropy of entropies) this.#totalEntropy += entropy;
  }

  get numBytes(): number {
    return this.#numBytes;
  }

  /** Nats as they come, means in bits. */
  toJSON() {
    const perByte = (nats: number): number => nats / this.#numBytes / Math.LN2;
    return {
      bytes: this.#numBytes,
      bits_per_byte: -perByte(this.#totalLogprob) || 0,
      total_logprob: this.#totalLogprob,
      ...(this.#totalEntropy === undefined ? {} : { mean_entropy: perByte(this.#totalEntropy) }),
    };
  }
}
