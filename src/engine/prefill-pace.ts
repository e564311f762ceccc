/** Prefill time per engine step when nobody decodes: short enough to notice aborts and newcomers. */
const IDLE_SLICE_SECONDS = 0.05;
/** Least prefill time per engine step beside a very fast decode turn. */
const MIN_SLICE_SECONDS = 0.001;
const MAX_STEPS = 64;

/**
 * Decides how much prefill may delay running streams: beside decoding sequences about as long as their last turn took,
 * so that a stream never slows down by more than about a half, however long the prompts are.
 */
export class PrefillPace {
  #maxSteps = 8;
  #sliceSeconds = IDLE_SLICE_SECONDS;

  /** Most graph steps for the next prefill call. A power of two: few distinct call shapes. */
  get maxSteps(): number {
    return this.#maxSteps;
  }

  /** @param turnSeconds duration of the last decode turn; undefined when nobody decodes */
  startSlice(turnSeconds: number | undefined): number {
    this.#sliceSeconds = turnSeconds === undefined ? IDLE_SLICE_SECONDS : Math.max(turnSeconds, MIN_SLICE_SECONDS);
    return this.#sliceSeconds;
  }

  /** Adapts the size of a call so that one call fits the slice. */
  observeCall(seconds: number): void {
    if (seconds > this.#sliceSeconds) this.#maxSteps = Math.max(1, this.#maxSteps / 2);
    else if (seconds < this.#sliceSeconds / 4) this.#maxSteps = Math.min(MAX_STEPS, this.#maxSteps * 2);
  }
}
