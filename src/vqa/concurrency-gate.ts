import { MblmError } from "../errors.js";

/** Lets a bounded number of jobs run at a time, and a bounded number wait, first come first served. */
export class ConcurrencyGate {
  #numRunning = 0;
  readonly #waiting: (() => void)[] = [];

  /** @param what the jobs' name in errors */
  constructor(
    private readonly maxRunning: number,
    private readonly maxWaiting: number,
    private readonly what: string,
  ) {}

  /** @throws MblmError `overloaded` when too many wait; what the job throws */
  async run<T>(job: () => Promise<T>): Promise<T> {
    if (this.#numRunning >= this.maxRunning) await this.#wait();
    else this.#numRunning++;
    try {
      return await job();
    } finally {
      // Whoever waits longest takes the place over.
      const next = this.#waiting.shift();
      if (next === undefined) this.#numRunning--;
      else next();
    }
  }

  #wait(): Promise<void> {
    if (this.#waiting.length >= this.maxWaiting) {
      throw new MblmError("overloaded", `Too many ${this.what} are waiting (${this.maxWaiting}); try again later.`);
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
