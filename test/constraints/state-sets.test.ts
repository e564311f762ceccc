import { describe, expect, it } from "vitest";
import { StateSets } from "../../src/constraints/automaton/state-sets.js";

describe("the numbering of state sets", () => {
  it("tells all sets apart, with enough of them that hashes of 32 bits collide", () => {
    const sets = new StateSets();
    const list = new Int32Array(2);
    for (let i = 0; i < 400_000; i++) {
      list[0] = i % 400;
      list[1] = Math.floor(i / 400);
      if (sets.intern(list, 2) !== i) expect.fail(`${list} is taken for another set`);
    }
    expect(sets.intern(Int32Array.of(1, 0), 2)).toBe(1);
    expect(sets.count).toBe(400_000);
  });

  it("tells a set from one that begins the same", () => {
    const sets = new StateSets();
    expect([sets.intern(Int32Array.of(1, 2, 3), 2), sets.intern(Int32Array.of(1, 2, 3), 3)]).toEqual([0, 1]);
    expect([sets.item(sets.start(1)), sets.end(1) - sets.start(1)]).toEqual([1, 3]);
  });
});
