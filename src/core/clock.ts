/** The one place that reads time; tests pass their own. */
export interface Clock {
  /** Monotonic seconds. */
  now(): number;
}

export const systemClock: Clock = { now: () => performance.now() / 1000 };
