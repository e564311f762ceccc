/** Prefill time per engine step when nobody decodes: short enough to notice aborts and newcomers. */
const IDLE_SLICE_SECONDS = 0.1;
/** Least prefill time per engine step beside a very fast decode turn. */
const MIN_SLICE_SECONDS = 0.001;

/**
 * Decides how much prefill may delay running streams: beside decoding sequences about as long as their last turn took,
 * so that a stream never slows down by more than about a half, however long the prompts are.
 */
export class PrefillPace {
  #maxSteps = 8;
  #sliceSeconds = IDLE_SLICE_SECONDS;
  /** What a call of `maxSteps` took, or should take after a change of `maxSteps`. */
  #callSeconds = 0;

  /**
   * @param mostSteps most graph steps that a call may take
   * @param leastFill part of the slice below which a call is too short
   */
  constructor(
    private readonly mostSteps: number,
    private readonly leastFill = 0.25,
  ) {}

  /** Most graph steps for the next prefill call. A power of two: few distinct call shapes. */
  get maxSteps(): number {
    return this.#maxSteps;
  }

  /**
   * @param turnSeconds duration of the last decode turn; undefined when nobody decodes
   * @returns seconds to spend before the next turn
   */
  startSlice(turnSeconds: number | undefined): number {
    this.#sliceSeconds = turnSeconds === undefined ? IDLE_SLICE_SECONDS : Math.max(turnSeconds, MIN_SLICE_SECONDS);
    this.#shrinkToSlice();
    return this.#sliceSeconds;
  }

  /** Adapts the size of the next call, so that one call fits the slice but does not waste it. */
  observeCall(seconds: number): void {
    this.#callSeconds = seconds;
    this.#shrinkToSlice();
    if (this.#callSeconds < this.#sliceSeconds * this.leastFill && 2 * this.#maxSteps <= this.mostSteps) {
      this.#maxSteps *= 2;
      this.#callSeconds *= 2;
    }
  }

  #shrinkToSlice(): void {
    while (this.#callSeconds > this.#sliceSeconds && this.#maxSteps > 1) {
      this.#maxSteps /= 2;
      this.#callSeconds /= 2;
    }
  }
}
