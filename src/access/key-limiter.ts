import { MblmError } from "../errors.js";
import type { KeyLimits } from "./api-key.js";
import { TokenBucket } from "./token-bucket.js";

/** Requests come in bursts of a second's bytes at least; a byte of debt is paid before the next request. */
const BURST_SECONDS = 1;
/** Node's timers take no more. */
const MAX_TIMER_MILLISECONDS = 2 ** 31 - 1;

/** One that waits for its turn, which may have come when it is woken. */
interface Waiter {
  wake: () => void;
}

/** What one key has under way and has used up. */
export class KeyLimiter {
  readonly #requests: TokenBucket | undefined;
  readonly #bytes: TokenBucket | undefined;
  /** In order of their turns. */
  readonly #line: Waiter[] = [];
  #numOpen = 0;

  /** @param now monotonic seconds */
  constructor(
    private readonly limits: KeyLimits,
    now: () => number,
  ) {
    const { requestsPerMinute: requests, bytesPerSecond: bytes } = limits;
    if (requests !== undefined) this.#requests = new TokenBucket(requests / 60, requests, now);
    if (bytes !== undefined) this.#bytes = new TokenBucket(bytes, bytes * BURST_SECONDS, now);
  }

  /** Counts a request. @throws MblmError `rate_limited` that says when there is room for one */
  takeRequest(): void {
    const seconds = this.#requests?.secondsUntil(1) ?? 0;
    if (seconds > 0) throw limited(`${this.limits.requestsPerMinute} requests a minute`, seconds);
    this.#requests?.take(1);
  }

  /** Counts bytes that were used. */
  takeBytes(count: number): void {
    this.#bytes?.take(count);
  }

  /** @throws MblmError `invalid_request` where so many sequences can never be open at a time */
  requirePlaces(count: number): void {
    if (count <= this.#maxOpen) return;
    const limit = `this key is limited to ${this.#maxOpen} sequences at a time`;
    throw new MblmError("invalid_request", `The request has ${count} sequences; ${limit}.`);
  }

  /** Takes one of the places; returns what gives it back. @throws MblmError `rate_limited` */
  enter(): () => void {
    const debt = this.#secondsOfDebt();
    if (debt > 0) throw limited(`${this.limits.bytesPerSecond} bytes a second`, debt);
    if (this.#numOpen + this.#line.length >= this.#maxOpen) {
      throw limited(`${this.limits.concurrency} sequences at a time`, 1);
    }
    return this.#take();
  }

  /**
   * Takes a place when its turn has come, before all that ask later; returns what gives it back.
   *
   * @param signal ends the waiting: who has waited must look at it
   */
  async enterInTurn(signal: AbortSignal): Promise<() => void> {
    const waiter: Waiter = { wake: () => {} };
    this.#line.push(waiter);
    try {
      while (!signal.aborted && !(this.#line[0] === waiter && this.#hasRoom())) await this.#change(waiter, signal);
      return this.#take();
    } finally {
      this.#line.splice(this.#line.indexOf(waiter), 1);
      this.#line[0]?.wake();
    }
  }

  get #maxOpen(): number {
    return this.limits.concurrency ?? Number.POSITIVE_INFINITY;
  }

  #secondsOfDebt(): number {
    return this.#bytes?.secondsUntil(Number.MIN_VALUE) ?? 0;
  }

  #hasRoom(): boolean {
    return this.#secondsOfDebt() === 0 && this.#numOpen < this.#maxOpen;
  }

  #take(): () => void {
    this.#numOpen++;
    return () => {
      this.#numOpen--;
      this.#line[0]?.wake();
    };
  }

  /** Resolves when there may be room for one that waits. */
  #change(waiter: Waiter, signal: AbortSignal): Promise<void> {
    const debt = this.#secondsOfDebt() * 1000;
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = debt > 0 ? setTimeout(wake, Math.min(debt, MAX_TIMER_MILLISECONDS)) : undefined;
      signal.addEventListener("abort", wake);
      waiter.wake = wake;
    });
  }
}

function limited(limit: string, seconds: number): MblmError {
  return new MblmError("rate_limited", `This key is limited to ${limit}; try again later.`, {
    retryAfterSeconds: Math.ceil(seconds),
  });
}
