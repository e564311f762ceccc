import { setMaxListeners } from "node:events";
import { MblmError } from "../errors.js";

/** What ends of its own when the time of a shutdown is over, such as uploads, has so long for it. */
const ENDING_SECONDS = 5;

/** Counts open requests so that a shutdown can wait for them, and cuts them off when their time is over. */
export class Lifecycle {
  readonly #open = new Set<AbortController>();
  readonly #endings = new Set<() => Promise<void>>();
  #draining = false;
  #onIdle: (() => void) | undefined;

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Requests that are being worked on. */
  get numOpen(): number {
    return this.#open.size;
  }

  /** @throws MblmError `shutting_down` */
  requireOpen(): void {
    if (this.#draining) throw new MblmError("shutting_down", "The server is shutting down.");
  }

  /** Has something ended, when the time of a shutdown is over, that can be gone on with elsewhere. Returns what undoes this. */
  endWith(end: () => Promise<void>): () => void {
    this.#endings.add(end);
    return () => this.#endings.delete(end);
  }

  /** Runs a request's work with the controller that cancels it. */
  async run<T>(work: (controller: AbortController) => Promise<T>): Promise<T> {
    this.requireOpen();
    const controller = new AbortController();
    setMaxListeners(0, controller.signal); // every sequence of the request listens
    this.#open.add(controller);
    try {
      return await work(controller);
    } finally {
      this.#open.delete(controller);
      if (this.#open.size === 0) this.#onIdle?.();
    }
  }

  /**
   * Refuses new requests and resolves when the open ones have ended or `seconds` are over, and a few more for what is ended then. Returns
   * those left.
   */
  async drain(seconds: number): Promise<number> {
    this.#draining = true;
    if (this.#open.size > 0) {
      const idle = new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
      await within(seconds, idle);
    }
    await within(ENDING_SECONDS, Promise.all([...this.#endings].map((end) => end())));
    return this.#open.size;
  }
}

/** Waits for something, but not for longer. */
async function within(seconds: number, what: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, seconds * 1000);
  });
  await Promise.race([what, timeout]);
  clearTimeout(timer);
}
