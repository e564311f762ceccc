import type { ByteLogprobs, PromptScores } from "../core/generation-event.js";
import type { PromptScoring } from "../core/generation-request.js";
import { computeEntropy, computeLogprobs } from "../sampling/logprobs.js";

/** Scores the ids of one prompt as their logits come, and hands the scores out in order. */
export class PromptScorer {
  readonly #input: Uint16Array;
  readonly #scoring: PromptScoring;
  readonly #vocabularySize: number;
  readonly #first: number;
  /** Scores not handed out yet; number 0 belongs to input index `#numTaken`. */
  #logprobs = new Float64Array(64);
  #entropies: Float64Array | undefined;
  readonly #top: ByteLogprobs["top"][] = [];
  #numScored: number;
  #numTaken: number;

  /** @param first index of the first id of `input` that is scored */
  constructor(input: Uint16Array, first: number, scoring: PromptScoring, vocabularySize: number) {
    this.#input = input;
    this.#first = first;
    this.#scoring = scoring;
    this.#vocabularySize = vocabularySize;
    this.#numScored = this.#numTaken = first;
    if (scoring.entropy) this.#entropies = new Float64Array(64);
  }

  /** Whether every id that is to be scored has been. */
  get isComplete(): boolean {
    return this.#numScored >= this.#input.length;
  }

  /**
   * Takes the logits that predict input index `index`. Those of a stretch may come in any order; `take` must not be
   * called before the stretch is complete.
   */
  score(index: number, logits: Float32Array, offset: number): void {
    if (index < this.#first || index >= this.#input.length) return;
    const place = index - this.#numTaken;
    while (place >= this.#logprobs.length) this.#grow();
    const { numTop, entropy } = this.#scoring;
    const { logprob, top } = computeLogprobs(logits, offset, this.#vocabularySize, this.#input[index]!, numTop);
    this.#logprobs[place] = logprob;
    if (numTop > 0) this.#top[place] = top;
    if (entropy) this.#entropies![place] = computeEntropy(logits, offset, this.#vocabularySize);
    this.#numScored++;
  }

  /** Removes and returns what has been scored; undefined when there is nothing. */
  take(): PromptScores | undefined {
    const count = this.#numScored - this.#numTaken;
    if (count === 0) return undefined;
    this.#numTaken = this.#numScored;
    return {
      logprobs: this.#logprobs.slice(0, count),
      ...(this.#entropies === undefined ? {} : { entropies: this.#entropies.slice(0, count) }),
      ...(this.#scoring.numTop === 0 ? {} : { top: this.#top.splice(0, count) }),
    };
  }

  #grow(): void {
    this.#logprobs = doubled(this.#logprobs);
    if (this.#entropies !== undefined) this.#entropies = doubled(this.#entropies);
  }
}

function doubled(values: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(2 * values.length);
  larger.set(values);
  return larger;
}
