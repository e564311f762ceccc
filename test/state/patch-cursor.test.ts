import { describe, expect, it } from "vitest";
import { dueStage, nextPrefill, stepsMade } from "../../src/state/patch-cursor.js";

const HIERARCHIES = [[1], [4, 1], [12, 3, 1], [30, 15, 3, 1]];

/** Walks the hierarchy byte by byte, as the definition in ARCHITECTURE says it. */
function walk(strides: readonly number[], length: number): { due: number; steps: number[] } {
  const steps = strides.map(() => 0);
  let due = -1;
  for (let fed = 1; fed <= length; fed++) {
    due = strides.slice(0, -1).findIndex((stride) => fed % stride === 0);
    steps[strides.length - 1]! += 1;
    if (due < 0) continue;
    steps[due]! += 1;
    for (let inner = due + 1; inner < strides.length; inner++) steps[inner] = 0;
  }
  return { due, steps };
}

describe.each(HIERARCHIES.map((strides) => [strides]))("strides %j", (strides) => {
  it("due stages and steps are those of a walk", () => {
    for (let length = 0; length < 100; length++) {
      const { due, steps } = walk(strides, length);
      expect(dueStage(length, strides)).toBe(due);
      expect(strides.map((_, stage) => stepsMade(length, stage, strides))).toEqual(steps);
    }
  });

  it("prefill takes whole steps, outermost first, and leaves the local stage at least one byte", () => {
    for (let total = 0; total < 100; total++) {
      let length = 0;
      for (let next = nextPrefill(0, total, strides); next; next = nextPrefill(length, total, strides)) {
        expect(length % strides[next.stage]!).toBe(0);
        expect(next.steps).toBeGreaterThan(0);
        length += next.steps * strides[next.stage]!;
        expect(length).toBeLessThan(total);
      }
      const patch = strides.length > 1 ? strides[strides.length - 2]! : 1;
      expect(total - length).toBeLessThanOrEqual(patch);
    }
  });

  it("a sequence that goes on at any border never steps past its parent's", () => {
    for (let length = 0; length < 60; length++) {
      const next = nextPrefill(length, 200, strides);
      if (!next || next.stage === 0) continue;
      expect((length % strides[next.stage - 1]!) + next.steps * strides[next.stage]!).toBeLessThan(
        strides[next.stage - 1]!,
      );
    }
  });

  it("inside a patch there is nothing to prefill", () => {
    if (strides.length > 1) expect(nextPrefill(1, 90, strides)).toBeUndefined();
  });
});
