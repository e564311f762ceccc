/** Something that may happen again and again, and those who wait for the next time. */
export class WakeUp {
  readonly #waiting = new Set<() => void>();

  /** Resolves at the next `wakeAll`, or when `stop` is aborted. */
  async next(stop: AbortSignal): Promise<void> {
    if (stop.aborted) return;
    let wake = (): void => {};
    await new Promise<void>((resolve) => {
      wake = resolve;
      this.#waiting.add(wake);
      stop.addEventListener("abort", wake, { once: true });
    });
    this.#waiting.delete(wake);
    stop.removeEventListener("abort", wake);
  }

  wakeAll(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
