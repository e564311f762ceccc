import { describe, expect, it } from "vitest";
import { PrefixTree } from "../../src/engine/prefix-tree.js";
import { makeRandom } from "./requests.js";

const ids = (text: string): Uint16Array => Uint16Array.from(Buffer.from(text));

describe("PrefixTree", () => {
  it("finds the longest key that is a prefix, and how far any key agrees", () => {
    const tree = new PrefixTree<string>();
    for (const key of ["romane", "romanus", "rom", "ruber"]) tree.set(ids(key), key);
    const cases: [text: string, value: string | undefined, numShared: number][] = [
      ["romanesque", "romane", 6],
      ["roman", "rom", 5],
      ["romanux", "rom", 6],
      ["ro", undefined, 2],
      ["ruby", undefined, 3],
      ["ruber", "ruber", 5],
      ["x", undefined, 0],
      ["", undefined, 0],
    ];
    for (const [text, value, numShared] of cases) expect(tree.match(ids(text))).toEqual({ value, numShared });
  });

  it("equals a plain list of keys under random use", () => {
    const random = makeRandom(5);
    const tree = new PrefixTree<number>();
    const list = new Map<string, number>();
    const randomKey = (): string => Array.from({ length: random(9) }, () => "abc"[random(3)]).join("");
    for (let i = 0; i < 5000; i++) {
      const key = randomKey();
      if (random(2) === 0) {
        tree.set(ids(key), i);
        list.set(key, i);
      } else {
        tree.delete(ids(key));
        list.delete(key);
      }
      const text = randomKey();
      const prefixes = [...list.keys()].filter((other) => text.startsWith(other));
      const longest = prefixes.sort((a, b) => b.length - a.length)[0];
      expect(tree.match(ids(text))).toEqual({
        value: longest === undefined ? undefined : list.get(longest),
        numShared: Math.max(0, ...[...list.keys()].map((other) => commonLength(other, text))),
      });
      expect(tree.isEmpty).toBe(list.size === 0);
    }
  });
});

function commonLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
