import { MblmError } from "../errors.js";

/** Lets so many in at a time; the others wait in order. */
export class Gate {
  readonly #waiting: (() => void)[] = [];
  #numInside = 0;

  /**
   * @param maxWaiting more are refused
   * @param what waits, for the error
   */
  constructor(
    private readonly maxInside: number,
    private readonly maxWaiting: number,
    private readonly what = "streams wait to generate",
  ) {}

  /**
   * Runs work inside.
   *
   * @param stop ends the waiting: the work must look at it itself
   * @param waitsForRoom whether it waits however many do
   * @throws MblmError `overloaded` when too many wait already
   */
  async pass<T>(stop: AbortSignal, work: () => Promise<T>, waitsForRoom = false): Promise<T> {
    if (this.#numInside < this.maxInside || stop.aborted) this.#numInside++;
    else await this.#turn(stop, waitsForRoom);
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #turn(stop: AbortSignal, waitsForRoom: boolean): Promise<void> {
    if (!waitsForRoom && this.#waiting.length >= this.maxWaiting) {
      throw new MblmError("overloaded", `Too many ${this.what}; try again later.`);
    }
    return new Promise((resolve) => {
      const enter = (): void => {
        stop.removeEventListener("abort", abort);
        this.#numInside++;
        resolve();
      };
      const abort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        enter();
      };
      this.#waiting.push(enter);
      stop.addEventListener("abort", abort, { once: true });
    });
  }

  #leave(): void {
    this.#numInside--;
    if (this.#numInside < this.maxInside) this.#waiting.shift()?.();
  }
}
