import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ConstraintSource } from "../../src/constraints/constraint-source.js";
import { type ByteAutomaton, NO_STATE, nextState } from "../../src/core/byte-automaton.js";
import { acceptsText } from "./walk.js";

function compile(source: ConstraintSource, allowed?: ReadonlySet<number>): ByteAutomaton {
  return compileConstraint(source, "field", allowed);
}
const regex = (pattern: string): ByteAutomaton => compile({ kind: "regex", pattern });
const choice = (...choices: string[]): ByteAutomaton => compile({ kind: "choice", choices });

const EXAMPLES: readonly ConstraintSource[] = [
  { kind: "regex", pattern: "(?:ab|c{3,}|[é-€]d?){1,4}" },
  { kind: "regex", pattern: ".*a.{3}" },
  { kind: "choice", choices: ["positive", "negative", "neutral", "né"] },
  {
    kind: "json_schema",
    schema: { type: "array", items: { type: "integer", minimum: -20, maximum: 117 }, minItems: 2 },
  },
  { kind: "json_object" },
  { kind: "utf8" },
];

/** Shortest way to an accepting state from every state, forwards: one search per state. */
function searchDistance(automaton: ByteAutomaton, from: number): number {
  let level = new Set([from]);
  const seen = new Set(level);
  for (let distance = 0; level.size > 0; distance++) {
    if ([...level].some((state) => automaton.accepting[state] === 1)) return distance;
    const below = new Set<number>();
    for (const state of level) {
      for (let byte = 0; byte < 256; byte++) {
        const target = nextState(automaton, state, byte);
        if (target === NO_STATE || seen.has(target)) continue;
        seen.add(target);
        below.add(target);
      }
    }
    level = below;
  }
  return Infinity;
}

/** Number of states that differ in what they accept, by Moore's refinement. */
function countDistinctStates(automaton: ByteAutomaton): number {
  let labels = Array.from(automaton.accepting, String);
  for (let count = 0; ; ) {
    const rows = labels.map((label, state) => {
      const targets = Array.from(
        { length: automaton.numClasses },
        (_, i) => automaton.next[state * automaton.numClasses + i]!,
      );
      return [label, ...targets.map((target) => labels[target] ?? "none")].join(" ");
    });
    const numbers = new Map([...new Set(rows)].map((row, i) => [row, String(i)]));
    if (numbers.size === count) return count;
    count = numbers.size;
    labels = rows.map((row) => numbers.get(row)!);
  }
}

describe("a compiled automaton", () => {
  it.each(EXAMPLES)("knows how far the end is: $kind $pattern", (source) => {
    const automaton = compile(source);
    const step = Math.ceil(automaton.numStates / 100);
    for (let state = 0; state < automaton.numStates; state += step) {
      expect(automaton.distance[state]).toBe(searchDistance(automaton, state));
    }
    expect(automaton.distance).not.toContain(0xffff_ffff);
  });

  it.each(EXAMPLES)("has no two states that accept the same: $kind $pattern", (source) => {
    const automaton = compile(source);
    expect(countDistinctStates(automaton)).toBe(automaton.numStates);
  });

  it("is the same for the same language, however it is written", () => {
    expect(regex("a|ab|abb")).toEqual(regex("a(?:b?){2}"));
    expect(regex("(?:a|b)*")).toEqual(regex("[ab]*"));
    expect(regex("colou?r")).toEqual(choice("colour", "color"));
    expect(regex("x*")).not.toEqual(regex("x+"));
  });

  it("shares prefixes and suffixes of choices", () => {
    // (a|b|c)ing: start, after the first letter, "i", "in", "ing"
    expect(choice("aing", "bing", "cing").numStates).toBe(5);
    expect(choice("tap", "taps", "top", "tops").numStates).toBe(5);
  });

  it("has as few classes as the language tells bytes apart, one being that of bytes that never occur", () => {
    expect(regex("[ab]x|[bc]x").numClasses).toBe(3);
    expect(choice("a").numClasses).toBe(2);
    expect(regex("").numClasses).toBe(1);
  });

  it("accepts the choices and nothing else", () => {
    const automaton = choice("yes", "yeah", "no", "né");
    for (const text of ["yes", "yeah", "no", "né"]) expect(acceptsText(automaton, text)).toBe(true);
    for (const text of ["", "ye", "yess", "n", "ne", "nés", "Yes"]) expect(acceptsText(automaton, text)).toBe(false);
  });

  it("leaves out the bytes that are not allowed", () => {
    const allowed = new Set(Buffer.from("abc"));
    const automaton = compile({ kind: "regex", pattern: "[a-z]{2}|é|dab" }, allowed);
    expect(automaton).toEqual(regex("[abc]{2}"));
    expect(() => compile({ kind: "regex", pattern: "d" }, allowed)).toThrow("field: no output can match");
  });

  it("keeps all of its arrays in shared memory", () => {
    const { classes, next, accepting, distance } = regex("a+");
    for (const array of [classes, next, accepting, distance]) expect(array.buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(structuredClone({ next }).next.buffer).toBeInstanceOf(SharedArrayBuffer);
  });
});
