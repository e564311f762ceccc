import { describe, expect, it } from "vitest";
import { StateSets } from "../../src/constraints/automaton/state-sets.js";
import { Random } from "./random.js";

describe("the numbering of state sets", () => {
  it("tells all sets apart, with enough of them that hashes of 32 bits collide", () => {
    const sets = new StateSets();
    const random = new Random(8);
    const list = new Int32Array(3);
    for (let i = 0; i < 400_000; i++) {
      for (let place = 0; place < 3; place++) list[place] = random.integer(0, 0x7fff_ffff);
      if (sets.intern(list, 3) !== i) expect.fail(`${list} is taken for another set`);
    }
    expect(sets.intern(list, 3)).toBe(399_999);
    expect(sets.count).toBe(400_000);
  });

  it("tells a set from one that begins the same", () => {
    const sets = new StateSets();
    expect([sets.intern(Int32Array.of(1, 2, 3), 2), sets.intern(Int32Array.of(1, 2, 3), 3)]).toEqual([0, 1]);
    expect([sets.item(sets.start(1)), sets.end(1) - sets.start(1)]).toEqual([1, 3]);
  });
});
