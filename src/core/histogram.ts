/** Counts of values by upper bound, as plain data. */
export interface HistogramCounts {
  /** Upper bounds, ascending; a last bucket without a bound follows. */
  readonly bounds: readonly number[];
  /** Values per bucket, not cumulative: one more than bounds. */
  readonly counts: readonly number[];
  readonly sum: number;
}

/** Counts values without allocating: for what happens thousands of times a second. */
export class Histogram {
  readonly #counts: Float64Array;
  #sum = 0;

  /** @param bounds ascending upper bounds, inclusive */
  constructor(private readonly bounds: readonly number[]) {
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const { bounds } = this;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
    this.#counts[bucket]! += 1;
    this.#sum += value;
  }

  toCounts(): HistogramCounts {
    return { bounds: this.bounds, counts: [...this.#counts], sum: this.#sum };
  }
}
