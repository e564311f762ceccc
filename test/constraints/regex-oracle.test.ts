import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import { MblmError } from "../../src/errors.js";
import { Random } from "./random.js";
import { ALPHABET, randomPattern } from "./random-pattern.js";
import { acceptsText, decode, walk } from "./walk.js";

const NUM_PATTERNS = 3000;

/** The pattern's automaton, or why there is none. */
function compile(pattern: string): ByteAutomaton | "empty" | "too large" {
  try {
    return compileConstraint({ kind: "regex", pattern }, "regex");
  } catch (error) {
    expect(error).toBeInstanceOf(MblmError);
    return String(error).includes("no output can match") ? "empty" : "too large";
  }
}

/** The text with one character taken out, put in or replaced. */
function mutate(text: string, random: Random): string {
  const characters = [...text];
  const place = random.integer(0, characters.length);
  const fresh = random.chance(0.3) ? [] : [random.pick(ALPHABET)];
  characters.splice(place, random.integer(0, 1), ...fresh);
  return characters.join("");
}

describe("the automaton of a regular expression", () => {
  it("agrees with RegExp on random patterns and strings", () => {
    const random = new Random(1);
    const seen = { matches: 0, mismatches: 0, empty: 0, tooLarge: 0 };
    for (let i = 0; i < NUM_PATTERNS; i++) {
      const pattern = randomPattern(random);
      const oracle = new RegExp(`^(?:${pattern})$`, "u");
      const automaton = compile(pattern);
      const check = (text: string, actual: boolean): void => {
        const expected = oracle.test(text);
        seen[expected ? "matches" : "mismatches"]++;
        if (actual !== expected) expect.fail(`/${pattern}/u on ${JSON.stringify(text)}: RegExp says ${expected}`);
      };
      const texts = Array.from({ length: 10 }, () => random.list(0, 4, () => random.pick(ALPHABET)).join(""));
      if (automaton === "too large") seen.tooLarge++;
      else if (automaton === "empty") {
        seen.empty++;
        for (const text of texts) check(text, false);
      } else {
        for (let j = 0; j < 8; j++) {
          const bytes = walk(automaton, random, random.integer(0, 10));
          check(decode(bytes), true);
          texts.push(mutate(decode(bytes), random));
        }
        for (const text of texts) check(text, acceptsText(automaton, text));
      }
    }
    expect(seen.matches).toBeGreaterThan(5 * NUM_PATTERNS);
    expect(seen.mismatches).toBeGreaterThan(5 * NUM_PATTERNS);
    expect(seen.empty).toBeGreaterThan(0);
    expect(seen.empty).toBeLessThan(NUM_PATTERNS / 10);
    expect(seen.tooLarge).toBeLessThan(NUM_PATTERNS / 100);
  });
});
