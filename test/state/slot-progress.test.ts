import { describe, expect, it } from "vitest";
import { dueStage, stepsMade } from "../../src/state/patch-cursor.js";
import { SlotProgress } from "../../src/state/slot-progress.js";

const HIERARCHIES = [
  [4, 1],
  [12, 3, 1],
  [30, 15, 3, 1],
];
const id = (slot: number, index: number): number => (slot * 101 + index * 7) % 256;
const ids = (slot: number, from: number, to: number): Uint16Array =>
  Uint16Array.from({ length: to - from }, (_, i) => id(slot, from + i));

describe.each(HIERARCHIES.map((strides) => [strides]))("strides %j", (strides) => {
  const NUM_SLOTS = 3;
  const filled = (length: number, slot: number): SlotProgress => {
    const progress = new SlotProgress(NUM_SLOTS, strides);
    progress.pushAll(slot, ids(slot, 0, length));
    return progress;
  };

  it("gives every stage the ids of the patch that was completed, pushed at once or one by one", () => {
    for (let length = 1; length < 100; length++) {
      const stage = dueStage(length, strides);
      const progress = filled(length, 1);
      const alone = new SlotProgress(NUM_SLOTS, strides);
      for (let index = 0; index < length; index++) alone.push(1, id(1, index));
      expect(progress.length(1)).toBe(length);
      expect(progress.dueStage(1)).toBe(stage);
      expect(alone.snapshot(1, length)).toEqual(progress.snapshot(1, length));
      if (stage < 0) continue;
      const size = strides[stage]!;
      const patch = Array.from({ length: size }, (_, k) => progress.patchId(1, stage, k));
      expect(patch).toEqual([...ids(1, length - size, length)]);
      expect(progress.stepsBefore(1, stage)).toBe(stepsMade(length - size, stage, strides));
      progress.cross(1);
      expect(progress.dueStage(1)).toBe(-1);
    }
  });

  it("keeps a sequence whole through moves, swaps, snapshots and what other slots do", () => {
    const length = strides[0]! + 2;
    const progress = filled(length, 0);
    const before = progress.snapshot(0, length);
    progress.pushAll(1, ids(1, 0, 5));
    progress.swap(0, 1);
    progress.move(1, 2);
    progress.reset(1);
    progress.push(0, 9);
    expect(progress.snapshot(2, length)).toEqual(before);
    expect(progress.length(1)).toBe(0);
    expect(progress.snapshot(0, 6).recent[5 % strides[0]!]).toBe(9);
    progress.restore(1, before);
    expect(progress.snapshot(1, length)).toEqual(before);
  });

  it("counts the steps of a snapshot's state: one that is due is not in it", () => {
    for (let length = 0; length < 100; length++) {
      for (const crossedAt of [0, length]) {
        const progress = filled(length, 0);
        const at = { ...progress.snapshot(0, length), crossedAt };
        for (const [stage, stride] of strides.entries()) {
          const isDue = length > 0 && crossedAt === 0 && length % stride === 0 && stage < strides.length - 1;
          expect(progress.stepsHeld(at, stage)).toBe(stepsMade(isDue ? length - 1 : length, stage, strides));
        }
      }
    }
  });

  it("refuses snapshots of other shapes, other vocabularies and places between borders", () => {
    const patch = strides.at(-2)!;
    const progress = filled(patch, 0);
    const good = progress.snapshot(0, patch);
    expect(progress.fits(good, 256)).toBe(true);
    expect(progress.fits(good, 7)).toBe(false);
    for (const bad of [
      { length: patch + 1 },
      { length: -patch },
      { length: patch * 0.5 },
      { length: Number.NaN },
      { crossedAt: patch + 1 },
      { crossedAt: -1 },
      { recent: good.recent.slice(1) },
    ]) {
      expect(progress.fits({ ...good, ...bad }, 256)).toBe(false);
    }
  });
});
