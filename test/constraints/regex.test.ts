import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import { acceptsText } from "./walk.js";

const compile = (pattern: string) => compileConstraint({ kind: "regex", pattern }, "regex");

/** Every character of the Basic Multilingual Plane and some beyond. */
const CHARACTERS = [0x10000, 0x1f600, 0x10fffd, 0x10ffff, ...Array.from({ length: 0x10000 }, (_, i) => i)]
  .filter((codePoint) => codePoint < 0xd800 || codePoint > 0xdfff)
  .map((codePoint) => String.fromCodePoint(codePoint));

describe("a set of characters", () => {
  it.each([".", "\\d", "\\D", "\\s", "\\S", "\\w", "\\W", "[^\\s]", "[\\u{7ff}-\\u{800}]", "[^\\u{fff0}-\\u{1000f}]"])(
    "%s is what RegExp takes it for",
    (pattern) => {
      const automaton = compile(pattern);
      const oracle = new RegExp(`^${pattern}$`, "u");
      expect(CHARACTERS.filter((character) => acceptsText(automaton, character) !== oracle.test(character))).toEqual(
        [],
      );
    },
  );
});

describe("a pattern with many groups", () => {
  it.each([
    ["side by side", "(a)".repeat(500), "a".repeat(500)],
    ["that are escaped", "\\(".repeat(500), "(".repeat(500)],
    ["in a class", `[${"(".repeat(500)}]`, "("],
    ["100 deep", `${"(".repeat(100)}a${")*".repeat(100)}`, "aaa"],
  ])("%s fits", (_, pattern, text) => {
    expect(acceptsText(compile(pattern), text)).toBe(true);
  });
});
