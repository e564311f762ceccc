import { describe, expect, it } from "vitest";
import { SharedTime } from "../../src/engine/shared-time.js";

/** Part of the turns' time that calls of this length get. */
function share(turnSeconds: number, callSeconds: number): number {
  const time = new SharedTime();
  let used = 0;
  for (let turn = 0; turn < 10_000; turn++) {
    time.earn(turnSeconds);
    while (time.isLeft) {
      time.spend(callSeconds);
      used += callSeconds;
    }
  }
  return used / (10_000 * turnSeconds);
}

describe("SharedTime", () => {
  it.each([
    [0.01, 0.0001],
    [0.01, 0.003],
    [0.01, 0.015],
    [0.001, 0.05],
  ])("beside turns of %f s, calls of %f s have the same share", (turn, call) => {
    expect(share(turn, call)).toBeCloseTo(0.4, 1);
  });

  it("saves nothing up, and forgives what a single slow call took", () => {
    const time = new SharedTime();
    for (let turn = 0; turn < 100; turn++) time.earn(0.01);
    time.spend(0.005);
    expect(time.isLeft).toBe(false);
    time.spend(60);
    for (let turn = 0; turn < 30; turn++) time.earn(0.01);
    expect(time.isLeft).toBe(true);
  });

  it("is all there is when nobody decodes", () => {
    const time = new SharedTime();
    time.earn(undefined);
    time.spend(1e6);
    expect(time.isLeft).toBe(true);
    time.earn(0.01);
    time.spend(0.01);
    expect(time.isLeft).toBe(false);
  });
});
