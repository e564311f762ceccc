import { MblmError } from "../errors.js";
import type { KeyLimits } from "./api-key.js";
import { TokenBucket } from "./token-bucket.js";

/** Requests come in bursts of a second's bytes at least; a byte of debt is paid before the next request. */
const BURST_SECONDS = 1;

/** What one key has under way and has used up. */
export class KeyLimiter {
  readonly #requests: TokenBucket | undefined;
  readonly #bytes: TokenBucket | undefined;
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

  /** Takes one of the places; returns what gives it back. @throws MblmError `rate_limited` */
  enter(): () => void {
    const debt = this.#bytes?.secondsUntil(Number.MIN_VALUE) ?? 0;
    if (debt > 0) throw limited(`${this.limits.bytesPerSecond} bytes a second`, debt);
    if (this.#numOpen >= (this.limits.concurrency ?? Number.POSITIVE_INFINITY)) {
      throw limited(`${this.limits.concurrency} sequences at a time`, 1);
    }
    this.#numOpen++;
    return () => {
      this.#numOpen--;
    };
  }
}

function limited(limit: string, seconds: number): MblmError {
  return new MblmError("rate_limited", `This key is limited to ${limit}; try again later.`, {
    retryAfterSeconds: Math.ceil(seconds),
  });
}
