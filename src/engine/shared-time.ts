/** Time that long prompts get for every second of decoding. */
const SHARE = 0.4;
/** A single slow moment must not keep them waiting for long. */
const MAX_DEBT_SECONDS = 0.1;

/**
 * The time that long prompts have beside running streams: a fixed share, paid back after it was used. So calls need not be
 * small, which would make them inefficient; and between two of them, streams run as if alone.
 */
export class SharedTime {
  #seconds = 0;

  /** @param turnSeconds duration of the last decode turn; undefined when nobody decodes, and all time is theirs */
  earn(turnSeconds: number | undefined): void {
    if (turnSeconds === undefined) {
      this.#seconds = Number.POSITIVE_INFINITY;
      return;
    }
    const earned = SHARE * turnSeconds;
    this.#seconds = Math.min(this.#seconds + earned, earned);
  }

  /** Whether there is time for one more call. */
  get isLeft(): boolean {
    return this.#seconds > 0;
  }

  spend(seconds: number): void {
    this.#seconds = Math.max(this.#seconds - seconds, -MAX_DEBT_SECONDS);
  }
}
