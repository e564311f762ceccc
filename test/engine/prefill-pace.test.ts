import { describe, expect, it } from "vitest";
import { PrefillPace } from "../../src/engine/prefill-pace.js";

/** Makes calls whose time is proportional to their steps until the size no longer changes. */
function settle(pace: PrefillPace, secondsPerStep: number, turnSeconds: number | undefined): number {
  for (let call = 0; call < 20; call++) {
    pace.startSlice(turnSeconds);
    pace.observeCall(pace.maxSteps * secondsPerStep);
  }
  return pace.maxSteps;
}

describe("PrefillPace", () => {
  it.each([
    { secondsPerStep: 1e-4, turnSeconds: 0.01, maxSteps: 32 },
    { secondsPerStep: 1e-3, turnSeconds: 0.01, maxSteps: 8 },
    { secondsPerStep: 1e-6, turnSeconds: 0.01, maxSteps: 64 },
    { secondsPerStep: 1, turnSeconds: 0.01, maxSteps: 1 },
  ])("settles on calls of $maxSteps steps of $secondsPerStep s beside turns of $turnSeconds s", (settled) => {
    expect(settle(new PrefillPace(64), settled.secondsPerStep, settled.turnSeconds)).toBe(settled.maxSteps);
  });

  it("cuts the first call already when streams begin to run", () => {
    const pace = new PrefillPace(64);
    expect(settle(pace, 7e-4, undefined)).toBe(64);
    pace.startSlice(0.004);
    expect(pace.maxSteps * 7e-4).toBeLessThanOrEqual(0.004);
  });

  it("takes as long as a turn, or a fixed time when nobody decodes", () => {
    const pace = new PrefillPace(64);
    expect(pace.startSlice(0.02)).toBe(0.02);
    expect(pace.startSlice(0)).toBeGreaterThan(0);
    expect(pace.startSlice(undefined)).toBe(0.1);
  });
});
