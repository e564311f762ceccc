import type { Clock } from "../core/clock.js";

/** Bytes per second between two reports of a number that grows. */
export class ProgressRate {
  #total = 0;
  #at: number;

  constructor(private readonly clock: Clock) {
    this.#at = clock.now();
  }

  /** Time that passed until now does not count. */
  restart(): void {
    this.#at = this.clock.now();
  }

  /** Since the last call, to a tenth; `total` as of now. */
  next(total: number): number {
    const now = this.clock.now();
    const rate = (total - this.#total) / Math.max(now - this.#at, 1e-6);
    this.#total = total;
    this.#at = now;
    return Math.round(rate * 10) / 10;
  }
}
