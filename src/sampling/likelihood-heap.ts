/**
 * Hands out ids from the most to the least likely, equal weights by ascending id. A binary heap: building it is linear
 * and each id taken costs log V, so a filter that keeps few ids never pays for a full sort. Nothing is allocated.
 */
export class LikelihoodHeap {
  readonly #ids: Uint16Array;
  #weights: Float64Array;
  #size = 0;

  constructor(vocabularySize: number) {
    this.#ids = new Uint16Array(vocabularySize);
    this.#weights = new Float64Array(vocabularySize);
  }

  /** Starts over with all ids of `weights`, which must not change until the last `pop`. */
  fill(weights: Float64Array): void {
    this.#weights = weights;
    this.#size = weights.length;
    for (let id = 0; id < this.#size; id++) this.#ids[id] = id;
    for (let node = (this.#size >> 1) - 1; node >= 0; node--) this.#sink(node);
  }

  /** The most likely id not handed out yet. The heap must not be empty. */
  pop(): number {
    const top = this.#ids[0]!;
    this.#size--;
    this.#ids[0] = this.#ids[this.#size]!;
    this.#sink(0);
    return top;
  }

  #sink(start: number): void {
    const id = this.#ids[start]!;
    let node = start;
    for (;;) {
      let child = 2 * node + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && this.#isBefore(this.#ids[child + 1]!, this.#ids[child]!)) child++;
      if (!this.#isBefore(this.#ids[child]!, id)) break;
      this.#ids[node] = this.#ids[child]!;
      node = child;
    }
    this.#ids[node] = id;
  }

  #isBefore(a: number, b: number): boolean {
    const weightA = this.#weights[a]!;
    const weightB = this.#weights[b]!;
    return weightA > weightB || (weightA === weightB && a < b);
  }
}
