import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ConstraintSource } from "../../src/constraints/constraint-source.js";
import { MblmError } from "../../src/errors.js";

const FIELD = "structured_outputs.x";

function refusal(source: ConstraintSource): string {
  try {
    compileConstraint(source, FIELD);
  } catch (error) {
    expect(error).toBeInstanceOf(MblmError);
    const { code, field, message } = error as MblmError;
    expect({ code, field, start: message.slice(0, FIELD.length + 2) }).toEqual({
      code: "invalid_request",
      field: FIELD,
      start: `${FIELD}: `,
    });
    expect(message.length).toBeLessThan(400);
    return message.slice(FIELD.length + 2);
  }
  return "accepted";
}
const regexRefusal = (pattern: string): string => refusal({ kind: "regex", pattern });
const schemaRefusal = (schema: unknown): string => refusal({ kind: "json_schema", schema });

describe("what a regular expression must not have", () => {
  it.each([
    ["a(?=b)", "lookahead is not supported (offset 1)"],
    ["(?!b)a", "lookahead is not supported (offset 0)"],
    ["(?<=b)a", "lookbehind is not supported (offset 0)"],
    ["(?<!b)a", "lookbehind is not supported (offset 0)"],
    ["(a)\\1", "a backreference is not supported (offset 3)"],
    ["(?<n>a)\\k<n>", "a backreference is not supported (offset 7)"],
    ["a\\b", "\\b is not supported (offset 1)"],
    ["\\Ba", "\\B is not supported (offset 0)"],
    ["\\p{L}", "\\p{…} is not supported (offset 0)"],
    ["[\\P{Lu}]", "\\p{…} is not supported (offset 0)"],
    ["a^b", "^ other than at the start is not supported (offset 1)"],
    ["^^a", "^ other than at the start is not supported (offset 1)"],
    ["(^a)", "^ other than at the start is not supported (offset 1)"],
    ["a$b", "$ other than at the end is not supported (offset 1)"],
    ["(?:a$|b)c", "$ other than at the end is not supported (offset 4)"],
    ["(?i:a)", "a flag inside a group is not supported (offset 0)"],
    ["(a", "not a regular expression: Unterminated group at offset 2"],
    ["a{2,1}", "not a regular expression: numbers out of order in {} quantifier at offset 6"],
    ["/u: \\-", "not a regular expression: Invalid escape at offset 5"],
    ["[]", "no output can match"],
    ["a[^\\s\\S]", "no output can match"],
    ["\\ud800", "no output can match"],
  ])("%s", (pattern, message) => expect(regexRefusal(pattern)).toBe(message));
});

describe("what a choice must not be", () => {
  it.each([
    [[], "must have at least one choice"],
    [["a", ""], "must not have an empty choice"],
    [["a", "\ud83d"], "has a choice with half a surrogate pair"],
    [Array.from({ length: 10_001 }, (_, i) => `${i}`), "needs more than the 10000 choices allowed"],
  ])("%#", (choices, message) => expect(refusal({ kind: "choice", choices })).toBe(message));
});

const deepSchema = (depth: number): unknown => (depth === 0 ? {} : { type: "array", items: deepSchema(depth - 1) });

describe("what a JSON schema must not have", () => {
  it.each<[unknown, string]>([
    [false, "# is false, which no value satisfies"],
    ["x", "# must be a schema"],
    [[{}], "# must be a schema"],
    [{ type: "date" }, "#/type must be one or several of object, array, string, integer, number, boolean, null"],
    [{ type: [] }, "#/type must be one or several of object, array, string, integer, number, boolean, null"],
    [{ allOf: [{}] }, "#/allOf is not supported here"],
    [{ not: {} }, "#/not is not supported here"],
    [{ if: {} }, "#/if is not supported here"],
    [{ type: "number", minimum: 0 }, "#/minimum is supported for the type integer only"],
    [{ type: ["integer", "number"], maximum: 0 }, "#/maximum is supported for the type integer only"],
    [{ minimum: 0 }, "#/minimum is not supported here"],
    [{ type: "integer", multipleOf: 2 }, "#/multipleOf is not supported here"],
    [{ type: "integer", minimum: "0" }, "#/minimum must be a number"],
    [{ type: "integer", maximum: 2 ** 53 }, "#/maximum must lie between -(2^53 - 1) and 2^53 - 1"],
    [{ type: "integer", minimum: 2, maximum: 1 }, "no output can match"],
    [{ type: "string", maxLength: -1 }, "#/maxLength must be an integer of at least 0"],
    [{ type: "string", minLength: 3, maxLength: 2 }, "#/minLength is greater than maxLength"],
    [{ type: "string", pattern: "a", maxLength: 2 }, "#/maxLength cannot be combined with pattern"],
    [{ type: "string", format: "date", minLength: 2 }, "#/minLength cannot be combined with format"],
    [{ type: "string", format: "date", pattern: "1" }, "#/format cannot be combined with pattern"],
    [{ type: "string", pattern: "(?=a)" }, "#/pattern: lookahead is not supported (offset 0)"],
    [{ anyOf: [{ pattern: "a" }, { not: {} }] }, "#/anyOf/1/not is not supported here"],
    [{ type: "string", format: "uri" }, "#/format must be one of date, time, date-time, uuid, ipv4, email"],
    [{ type: "array", uniqueItems: true }, "#/uniqueItems is not supported here"],
    [{ type: "array", contains: {} }, "#/contains is not supported here"],
    [{ type: "array", items: [{}] }, "#/items must be a schema"],
    [{ type: "array", minItems: 2, maxItems: 1 }, "#/minItems is greater than maxItems"],
    [{ prefixItems: [] }, "#/prefixItems must be a list that is not empty"],
    [{ prefixItems: Array.from({ length: 101 }, () => ({})) }, "#/prefixItems has more than 100 schemas"],
    [
      { properties: { a: {} }, additionalProperties: true },
      "#/additionalProperties must be false, or absent, next to properties",
    ],
    [{ properties: { a: {} }, required: ["b"] }, "#/required names a property that is not in properties"],
    [{ properties: { a: {} }, minProperties: 1 }, "#/minProperties is not supported here"],
    [{ properties: { a: false } }, "#/properties/a is false, which no value satisfies"],
    [{ properties: { "a/b~c": { not: {} } } }, "#/properties/a~1b~0c/not is not supported here"],
    [{ type: "object", required: ["a"] }, "#/required is not supported here"],
    [{ type: "object", minProperties: 2 }, "#/minProperties must be 0 or 1"],
    [{ type: "object", minProperties: 1, maxProperties: 0 }, "#/minProperties is greater than maxProperties"],
    [{ patternProperties: {} }, "#/patternProperties is not supported here"],
    [{ enum: [] }, "#/enum must be a list that is not empty"],
    [{ enum: [1], maximum: 2 }, "#/maximum is not supported here"],
    [{ const: 1, enum: [1] }, "#/enum is not supported here"],
    [{ type: "string", const: 1 }, "no output can match"],
    [{ anyOf: [] }, "#/anyOf must be a list that is not empty"],
    [{ anyOf: [{}], type: "string" }, "#/type is not supported here"],
    [{ anyOf: [{}, { anyOf: [{ allOf: [] }] }] }, "#/anyOf/1/anyOf/0/allOf is not supported here"],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, "#/oneOf has branches that may overlap; use anyOf"],
    [{ oneOf: [{}, { type: "null" }] }, "#/oneOf has branches that may overlap; use anyOf"],
    [{ oneOf: [{ enum: [1, 2] }, { enum: [2, 3] }] }, "#/oneOf has branches that may overlap; use anyOf"],
    [
      { oneOf: [1, 2].map((value) => ({ type: "object", properties: { kind: { const: value } } })) },
      "#/oneOf has branches that may overlap; use anyOf",
    ],
    [
      { oneOf: [1, 2].map((n) => ({ type: "object", properties: { a: { const: n }, b: {} }, required: ["b"] })) },
      "#/oneOf has branches that may overlap; use anyOf",
    ],
    [
      { oneOf: [1, 2].map((n) => ({ properties: { a: { const: n } }, required: ["a"] })) },
      "#/oneOf has branches that may overlap; use anyOf",
    ],
    [{ $ref: "#" }, "#/$ref must point into #/$defs or #/definitions"],
    [{ $ref: "other.json#/$defs/a" }, "#/$ref must point into #/$defs or #/definitions"],
    [{ $ref: "#/properties/a" }, "#/$ref must point into #/$defs or #/definitions"],
    [{ $ref: "#/$defs/a" }, "#/$ref points to nothing"],
    [{ $ref: "#/$defs/a", $defs: { a: {} }, type: "null" }, "#/type is not supported here"],
    [{ $ref: "#/$defs/%" }, "#/$ref is not a JSON pointer"],
    [{ $ref: 1 }, "#/$ref must be a string"],
    [
      { $ref: "#/$defs/list", $defs: { list: { type: "array", items: { $ref: "#/$defs/list" } } } },
      "#/$defs/list/items/$ref is recursive, which is not supported",
    ],
    [{ $dynamicRef: "#a" }, "#/$dynamicRef is not supported here"],
    [{ nullable: true, type: "string" }, "#/nullable is not supported here"],
    [{ [`x${"y".repeat(50_000)}`]: 1 }, `#/x${"y".repeat(97)}… is not supported here`],
  ])("%j", (schema, message) => expect(schemaRefusal(schema)).toBe(message));
});

describe("a source that would take too long or too much memory", () => {
  const many = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
  const doubling = many(
    40,
    (i) => [`d${i}`, { prefixItems: [1, 2].map(() => ({ $ref: `#/$defs/d${i + 1}` })) }] as const,
  );

  it.each([
    ["(a{1000}){1000}", "states with all repetitions written out"],
    [".{1,100000}", "states with all repetitions written out"],
    ["a{99999999999999999999}", "states with all repetitions written out"],
    [`a{${"9".repeat(400)}}`, "states with all repetitions written out"],
    ["(?:){100000000}", "states with all repetitions written out"],
    ["(a|b)*a(a|b){30}", "2000000 steps of compilation"],
    ["é{30000}", "60000 states of the automaton"],
    ["(?:a{2})*|(?:a{3})*|(?:a{5})*|(?:a{7})*|(?:a{11})*|(?:a{13})*|(?:a{17})*", "2000000 steps of compilation"],
    ["((a?){100}){100}", "2000000 steps of compilation"],
    ["(((a{1,10}){1,10}){1,10}){1,10}", "2000000 steps of compilation"],
    [many(26, (i) => `(?:.*${String.fromCharCode(65 + i)}.*)`).join("|"), "2000000 steps of compilation"],
    [many(2400, (i) => `[^${String.fromCodePoint(0x4e00 + i)}]`).join(""), "2000000 steps of compilation"],
    ["(".repeat(101) + ")".repeat(101), "100 levels of groups in a pattern"],
    ["(".repeat(5000) + ")".repeat(5000), "100 levels of groups in a pattern"],
    ["a".repeat(1_000_000), "10000 characters of a pattern"],
  ])("is refused with the bound it exceeds: case %#", (pattern, bound) => {
    expect(regexRefusal(pattern)).toContain(bound);
  });

  it.each<[string, unknown, string]>([
    ["deep JSON", JSON.parse("[".repeat(100_000) + "]".repeat(100_000)), "64 levels of a schema"],
    ["deep schemas", deepSchema(64), "64 levels of a schema"],
    ["many values", many(1_000_000, () => 1), "100000 values and characters of a schema"],
    ["long texts", { description: "x".repeat(100_000) }, "100000 values and characters of a schema"],
    [
      "long names",
      Object.fromEntries(many(1000, (i) => [`${i}${"x".repeat(100)}`, 1])),
      "100000 values and characters",
    ],
    [
      "a long chain of $ref",
      { $ref: "#/$defs/d0", $defs: Object.fromEntries(many(70, (i) => [`d${i}`, { $ref: `#/$defs/d${i + 1}` }])) },
      "64 schemas inside one another",
    ],
    [
      "references that double",
      { $ref: "#/$defs/d0", $defs: { ...Object.fromEntries(doubling), d25: {} } },
      "written out",
    ],
    ["many open values", { type: "array", maxItems: 100 }, "200000 states with all repetitions written out"],
    ["long strings", { type: "string", maxLength: 1e9 }, "200000 states with all repetitions written out"],
    ["many branches of oneOf", { oneOf: many(5000, (i) => ({ const: i })) }, "2000000 steps of compilation"],
    ["many patterns", { anyOf: many(2500, (i) => ({ pattern: `[^a].${i}` })) }, "2000000 steps of compilation"],
    [
      "many ranges",
      { anyOf: many(1500, (i) => ({ type: "integer", minimum: i, maximum: 1e15 + i })) },
      "2000000 steps",
    ],
  ])("is refused with the bound it exceeds: %s", (_, schema, bound) => {
    expect(schemaRefusal(schema)).toContain(bound);
  });
});
