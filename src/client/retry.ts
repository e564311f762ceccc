/** Statuses that a later try may change: timeout, conflict, overload. All of 5xx belong to them, too. */
const RETRIABLE = [408, 409, 429];
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8_000;
/** A server that asks for more than this is not waited for: the caller gets the error at once, and the wait's length. */
const MAX_ASKED_MS = 60_000;

/** Whether a refused request may be sent again; `x-should-retry` has the last word. */
export function isRetriable(status: number, headers: Headers): boolean {
  const asked = headers.get("x-should-retry");
  if (asked === "true") return true;
  if (asked === "false") return false;
  return RETRIABLE.includes(status) || status >= 500;
}

/**
 * How long the server asks to wait, in milliseconds ≥ 0: `retry-after-ms`, or `retry-after` in seconds or as a date.
 * Undefined when it does not say.
 *
 * @param now Unix time in milliseconds
 */
export function askedDelayMs(headers: Headers, now: number): number | undefined {
  const ms = toNumber(headers.get("retry-after-ms"));
  if (ms !== undefined) return ms;
  const after = headers.get("retry-after");
  const seconds = toNumber(after);
  if (seconds !== undefined) return seconds * 1000;
  const date = after === null ? Number.NaN : Date.parse(after);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/**
 * Milliseconds before the next try, undefined if there should be none.
 *
 * @param attempt tries so far beside the first, from 0
 * @param askedMs what the server asked for
 * @param random in [0, 1): clients that failed together come back apart
 */
export function retryDelayMs(attempt: number, askedMs: number | undefined, random: number): number | undefined {
  if (askedMs !== undefined) return askedMs <= MAX_ASKED_MS ? askedMs : undefined;
  const delay = Math.min(FIRST_DELAY_MS * 2 ** attempt, MAX_DELAY_MS);
  return delay * (1 - random / 2);
}

/** A plain number ≥ 0; dates and negative numbers are none. */
function toNumber(text: string | null): number | undefined {
  return text !== null && /^\s*\d+(\.\d+)?\s*$/.test(text) ? Number(text) : undefined;
}
