import { describe, expect, it } from "vitest";
import { ConstraintCompiler } from "../../src/constraints/constraint-compiler.js";
import type { ConstraintSource } from "../../src/constraints/constraint-source.js";

const regex = (pattern: string): ConstraintSource => ({ kind: "regex", pattern });

describe("the cache of compiled constraints", () => {
  it("gives the same automaton for an equal source", () => {
    const compiler = new ConstraintCompiler(2);
    expect(compiler.compile(regex("a"), "f")).toBe(compiler.compile(regex("a"), "g"));
    expect(compiler.compile(regex("a"), "f")).not.toBe(compiler.compile(regex("b"), "f"));
    expect(compiler.compile({ kind: "choice", choices: ["a"] }, "f")).not.toBe(compiler.compile(regex("a"), "f"));
  });

  it("drops the one that was used least recently", () => {
    const compiler = new ConstraintCompiler(2);
    const a = compiler.compile(regex("a"), "f");
    const b = compiler.compile(regex("b"), "f");
    expect(compiler.compile(regex("a"), "f")).toBe(a);
    compiler.compile(regex("c"), "f");
    expect(compiler.compile(regex("a"), "f")).toBe(a);
    expect(compiler.compile(regex("b"), "f")).not.toBe(b);
  });

  it("keeps no more than its memory, but the latest whatever its size", () => {
    const compiler = new ConstraintCompiler(100, 100_000);
    const large = compiler.compile(regex("[^a]{500}"), "f");
    expect(large.next.byteLength).toBeGreaterThan(20_000);
    expect(compiler.compile(regex("[^a]{500}"), "f")).toBe(large);
    for (const letter of "bcdefghijk") compiler.compile(regex(`[^${letter}]{500}`), "f");
    expect(compiler.compile(regex("[^a]{500}"), "f")).not.toBe(large);
    const huge = compiler.compile(regex(".{2000}"), "f");
    expect(huge.next.byteLength).toBeGreaterThan(100_000);
    expect(compiler.compile(regex(".{2000}"), "f")).toBe(huge);
  });

  it("tells allowed bytes apart, in any order", () => {
    const compiler = new ConstraintCompiler(4);
    const all = compiler.compile(regex("[ab]"), "f");
    const both = compiler.compile(regex("[ab]"), "f", new Set([0x61, 0x62]));
    expect(compiler.compile(regex("[ab]"), "f", new Set([0x62, 0x61]))).toBe(both);
    expect(both).not.toBe(all);
    expect(compiler.compile(regex("[ab]"), "f", new Set([0x61]))).not.toEqual(both);
  });

  it("names the field of the request in a refusal and refuses again", () => {
    const compiler = new ConstraintCompiler(1);
    expect(() => compiler.compile(regex("("), "guided_regex")).toThrow("guided_regex: not a regular expression");
    expect(() => compiler.compile(regex("("), "other")).toThrow("other: not a regular expression");
  });

  it("refuses a schema too deep to be a key", () => {
    const schema: unknown = JSON.parse("[".repeat(100_000) + "]".repeat(100_000));
    expect(() => new ConstraintCompiler(1).compile({ kind: "json_schema", schema }, "f")).toThrow("64 levels");
  });
});
