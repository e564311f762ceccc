import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import { Random } from "./random.js";
import { accepts } from "./walk.js";

const utf8 = compileConstraint({ kind: "utf8" }, "text");
const decoder = new TextDecoder("utf-8", { fatal: true });

function isUtf8(bytes: Uint8Array): boolean {
  try {
    decoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

function check(...bytes: number[]): void {
  const expected = isUtf8(Uint8Array.from(bytes));
  if (accepts(utf8, Uint8Array.from(bytes)) !== expected) expect.fail(`${bytes}: TextDecoder says ${expected}`);
}

const BYTES = Array.from({ length: 256 }, (_, byte) => byte);
const EDGES = [
  0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
];
const HIGH_EDGES = [0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff];
const ALL_EDGES = [...EDGES, ...HIGH_EDGES];

describe("the automaton of valid UTF-8", () => {
  it("agrees with TextDecoder on all strings of up to two bytes", () => {
    check();
    for (const a of BYTES) {
      check(a);
      for (const b of BYTES) check(a, b);
    }
  });

  it("agrees with TextDecoder at the edges of all ranges in three and four bytes", () => {
    for (const a of ALL_EDGES)
      for (const b of ALL_EDGES)
        for (const c of ALL_EDGES) {
          check(a, b, c);
          for (const d of EDGES) check(a, b, c, d);
        }
  });

  it("agrees with TextDecoder on random strings made of whole and broken characters", () => {
    const random = new Random(3);
    for (let i = 0; i < 20_000; i++) {
      const bytes = random.list(0, 4, () => [...Buffer.from(String.fromCodePoint(random.integer(0, 0x10ffff)))]).flat();
      if (random.chance(0.5) && bytes.length > 0) bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255);
      check(...bytes);
    }
  });

  it("has the nine ways on that the Unicode standard lists, merged by what may follow", () => {
    // Start; 1, 2 or 3 bytes to come; the restricted second bytes after E0, ED, F0 and F4.
    expect(utf8.numStates).toBe(8);
    expect(Array.from(utf8.accepting)).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  });
});
