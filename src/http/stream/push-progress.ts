import type { Clock } from "../../core/clock.js";
import { ProgressRate } from "../../feeding/progress-rate.js";

/** How far the model is with what is pushed to a stream. */
export class PushProgress {
  #received = 0;
  #prefilled = 0;
  readonly #rate: ProgressRate;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param seconds between two reports while the model is behind; one more comes when it is not any longer
   * @param say a message
   */
  constructor(
    private readonly number: number,
    private readonly seconds: number,
    clock: Clock,
    private readonly say: (message: object) => void,
  ) {
    this.#rate = new ProgressRate(clock);
  }

  receive(bytes: number): void {
    if (this.#prefilled === this.#received) this.#rate.restart();
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
    this.say({
      type: "progress",
      stream: this.number,
      received_bytes: this.#received,
      prefilled_bytes: this.#prefilled,
      bytes_per_second: this.#rate.next(this.#prefilled),
    });
  }
}
