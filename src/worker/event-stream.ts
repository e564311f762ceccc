/** A queue between one producer that never waits and one consumer that does. */
export class EventStream<T> {
  readonly #events: T[] = [];
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  push(event: T): void {
    this.#events.push(event);
    this.#wake?.();
  }

  /** Makes `next` throw once the events pushed before are consumed. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** The next event; waits for it. At most one call may wait at a time. */
  async next(): Promise<T> {
    while (this.#events.length === 0) {
      if (this.#error !== undefined) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#events.shift()!;
  }
}
