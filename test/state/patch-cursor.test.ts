import { describe, expect, it } from "vitest";
import { dueStage, firstOf, nextPrefill, stepsMade } from "../../src/state/patch-cursor.js";

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

  it("prefill takes whole patches, outermost first, and leaves the local stage at most one, whatever border it begins at", () => {
    const patch = strides.length > 1 ? strides[strides.length - 2]! : 1;
    for (let begin = 0; begin < 60; begin += patch) {
      for (let total = begin + 1; total < begin + 100; total++) {
        let length = begin;
        for (let next = nextPrefill(length, total, strides); next; next = nextPrefill(length, total, strides)) {
          expect(length % strides[next.stage]!).toBe(0);
          expect(next.patches).toBeGreaterThan(0);
          length += next.patches * strides[next.stage]!;
          expect(length).toBeLessThan(total);
        }
        expect(total - length).toBeLessThanOrEqual(patch);
      }
    }
  });

  it("a sequence that goes on at any border never steps past its parent's", () => {
    for (let length = 0; length < 60; length++) {
      const next = nextPrefill(length, 200, strides);
      if (!next || next.stage === 0) continue;
      const { stage, patches, steps } = next;
      const parent = strides[stage - 1]!;
      const end = (length % parent) + patches * strides[stage]!;
      expect(end).toBeLessThanOrEqual(parent);
      expect(steps).toBe(end === parent ? patches - 1 : patches);
    }
  });

  it("takes as much of a run as a call may: the patch that ends the parent's sequence needs no step", () => {
    const run = { stage: 1, patches: 4, steps: 3 };
    expect(firstOf(run, 2)).toEqual({ stage: 1, patches: 2, steps: 2 });
    expect(firstOf(run, 3)).toEqual(run);
    expect(firstOf({ stage: 1, patches: 1, steps: 0 }, 1)).toEqual({ stage: 1, patches: 1, steps: 0 });
  });

  it("inside a patch there is nothing to prefill", () => {
    if (strides.length > 1) expect(nextPrefill(1, 90, strides)).toBeUndefined();
  });
});
