import type { Clock } from "../core/clock.js";
import { ProgressRate } from "./progress-rate.js";

/** How far a prompt is. */
export class PromptProgress {
  #prefilled = 0;
  readonly #rate: ProgressRate;

  /** @param readReceived bytes that have come */
  constructor(
    private readonly readReceived: () => number,
    clock: Clock,
  ) {
    this.#rate = new ProgressRate(clock);
  }

  /** The model has been fed so many more bytes. */
  add(bytes: number): void {
    this.#prefilled += bytes;
  }

  /** All that has come has been fed. */
  finish(): void {
    this.#prefilled = this.readReceived();
  }

  /** Bytes; the rate is that since the last report. */
  report(): { received: number; prefilled: number; perSecond: number } {
    const prefilled = this.#prefilled;
    return { received: this.readReceived(), prefilled, perSecond: this.#rate.next(prefilled) };
  }
}
