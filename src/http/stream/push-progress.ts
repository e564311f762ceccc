import type { Clock } from "../../core/clock.js";

/** How far the model is with what is pushed to a stream. */
export class PushProgress {
  #received = 0;
  #prefilled = 0;
  #reported = 0;
  #reportedAt: number;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param seconds between two reports while the model is behind; one more comes when it is not any longer
   * @param say a message
   */
  constructor(
    private readonly number: number,
    private readonly seconds: number,
    private readonly clock: Clock,
    private readonly say: (message: object) => void,
  ) {
    this.#reportedAt = clock.now();
  }

  receive(bytes: number): void {
    if (this.#prefilled === this.#received) this.#reportedAt = this.clock.now();
    this.#received += bytes;
    this.#timer ??= setInterval(() => this.#report(), this.seconds * 1000);
  }

  /** The model has been fed so many more bytes. */
  prefill(bytes: number): void {
    this.#prefilled += bytes;
    this.#noteProgress();
  }

  /** So many bytes were refused. */
  drop(bytes: number): void {
    this.#received -= bytes;
    this.#noteProgress();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #noteProgress(): void {
    if (this.#prefilled < this.#received || this.#timer === undefined) return;
    this.end();
    this.#report();
  }

  #report(): void {
    const now = this.clock.now();
    const rate = (this.#prefilled - this.#reported) / Math.max(now - this.#reportedAt, 1e-6);
    this.#reported = this.#prefilled;
    this.#reportedAt = now;
    this.say({
      type: "progress",
      stream: this.number,
      received_bytes: this.#received,
      prefilled_bytes: this.#prefilled,
      bytes_per_second: Math.round(rate * 10) / 10,
    });
  }
}
