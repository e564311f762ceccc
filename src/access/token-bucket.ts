/** Units that come in steadily and are kept up to `capacity`; may be overdrawn by what is only known afterwards. */
export class TokenBucket {
  #level: number;
  #updatedAt: number;

  /**
   * @param perSecond units that come in
   * @param capacity most units that are kept
   * @param now monotonic seconds
   */
  constructor(
    private readonly perSecond: number,
    private readonly capacity: number,
    private readonly now: () => number,
  ) {
    this.#level = capacity;
    this.#updatedAt = now();
  }

  take(units: number): void {
    this.#refill();
    this.#level -= units;
  }

  /** Seconds until `units` are there, 0 when they are. Never more than the capacity is asked for. */
  secondsUntil(units: number): number {
    this.#refill();
    return Math.max(0, (Math.min(units, this.capacity) - this.#level) / this.perSecond);
  }

  #refill(): void {
    const now = this.now();
    this.#level = Math.min(this.capacity, this.#level + (now - this.#updatedAt) * this.perSecond);
    this.#updatedAt = now;
  }
}
