import { MblmClientError, MblmConnectionError, MblmTimeoutError } from "./errors.js";

/** What fetch (undici's) calls its own limits of patience. */
const FETCH_TIMEOUTS = ["HeadersTimeoutError", "BodyTimeoutError"];

/**
 * One call from its first try to the last byte of its answer: what can cancel it, how long it waits for the server, and
 * what its failures are called.
 */
export class CallScope {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #timeoutMs: number | undefined;

  constructor(outer: AbortSignal | undefined, timeoutMs: number | undefined) {
    this.#outer = outer;
    this.#timeoutMs = timeoutMs;
    if (outer?.aborted) this.#cancel();
    else outer?.addEventListener("abort", this.#cancel, { once: true });
  }

  /** For fetch. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Waits for the server, no longer than the timeout; time in which nobody waits does not count.
   *
   * @throws what `toError` makes of the failure
   */
  async wait<T>(work: Promise<T>): Promise<T> {
    const timer = this.#timeoutMs === undefined ? undefined : setTimeout(this.#expire, this.#timeoutMs);
    try {
      return await work;
    } catch (thrown) {
      throw this.toError(thrown);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits between two tries. @throws the abort's reason when it comes first */
  async sleep(ms: number): Promise<void> {
    this.check();
    let stop: (() => void) | undefined;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      stop = () => {
        clearTimeout(timer);
        resolve();
      };
      this.signal.addEventListener("abort", stop, { once: true });
    });
    this.signal.removeEventListener("abort", stop!);
    this.check();
  }

  /** @throws the abort's reason, even when what has been received could still be delivered */
  check(): void {
    this.signal.throwIfAborted();
  }

  /** Ends the call, whatever state it is in: closes its connection and forgets the caller's signal. */
  close(): void {
    this.#outer?.removeEventListener("abort", this.#cancel);
    this.#controller.abort();
  }

  /** What a failure of fetch, or of reading its answer, means. */
  toError(thrown: unknown): unknown {
    if (this.signal.aborted) return this.signal.reason;
    if (thrown instanceof MblmClientError) return thrown;
    const cause = thrown instanceof Error ? thrown.cause : undefined;
    const reason = cause instanceof Error ? cause : thrown;
    const message = reason instanceof Error ? reason.message || reason.name : String(reason);
    if (reason instanceof Error && FETCH_TIMEOUTS.includes(reason.name)) {
      return new MblmTimeoutError(`the server was silent for too long: ${message}`, { cause: thrown });
    }
    return new MblmConnectionError(`the connection failed: ${message}`, { cause: thrown });
  }

  readonly #cancel = (): void => this.#controller.abort(this.#outer!.reason);

  readonly #expire = (): void => {
    this.#controller.abort(new MblmTimeoutError(`the server was silent for ${this.#timeoutMs} ms`));
  };
}
