import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import { MAX_JSON_DEPTH } from "../../src/constraints/limits.js";
import { Random } from "./random.js";
import { acceptsText, decode, walk } from "./walk.js";

const automaton = compileConstraint({ kind: "json_object" }, "response_format");

function randomValue(random: Random, depth: number): unknown {
  const text = () => random.list(0, 3, () => random.pick(["a", '"', "\\", "é", "😀", "\n", "\u0007"])).join("");
  const scalars = [text, () => random.integer(-9, 1e6), () => random.next() * 1e-8, () => null, () => true];
  if (depth === 0 || random.chance(0.3)) return random.pick<() => unknown>(scalars)();
  const items = random.list(0, 3, () => randomValue(random, depth - 1));
  return random.chance(0.5) ? items : Object.fromEntries(items.map((item) => [text(), item]));
}

const depthOf = (value: unknown): number =>
  typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;

describe("any JSON object", () => {
  it("only makes objects that JSON.parse reads", () => {
    const random = new Random(6);
    let deepest = 0;
    for (let i = 0; i < 2000; i++) {
      const value = JSON.parse(decode(walk(automaton, random, random.integer(0, 120))));
      expect(Object.prototype.toString.call(value)).toBe("[object Object]");
      deepest = Math.max(deepest, depthOf(value));
    }
    expect(deepest).toBeGreaterThan(2);
  });

  it("takes every object within the depth as JSON.stringify writes it", () => {
    const random = new Random(7);
    for (let i = 0; i < 2000; i++) {
      const members = random.list(0, 4, () => [random.pick(["k", ""]), randomValue(random, MAX_JSON_DEPTH - 1)]);
      const text = JSON.stringify(Object.fromEntries(members));
      if (!acceptsText(automaton, text)) expect.fail(text);
    }
  });

  it("refuses what is deeper, other values, other white space and broken JSON", () => {
    const nested = (depth: number): string => (depth === 0 ? "1" : `{"a":${nested(depth - 1)}}`);
    expect(acceptsText(automaton, nested(MAX_JSON_DEPTH))).toBe(true);
    const refused = [
      nested(MAX_JSON_DEPTH + 1),
      "[]",
      "1",
      "",
      " {}",
      "{} ",
      "{a:1}",
      "{'a':1}",
      '{"a":1,}',
      '{"a":tru}',
    ];
    expect(refused.filter((text) => acceptsText(automaton, text))).toEqual([]);
  });
});
