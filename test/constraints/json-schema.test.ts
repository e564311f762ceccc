import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import { Random } from "./random.js";
import { acceptsText, decode, walk } from "./walk.js";

const compile = (schema: unknown): ByteAutomaton => compileConstraint({ kind: "json_schema", schema }, "schema");

function expectTexts(schema: unknown, accepted: readonly string[], refused: readonly string[]): void {
  const automaton = compile(schema);
  expect(accepted.filter((text) => !acceptsText(automaton, text))).toEqual([]);
  expect(refused.filter((text) => acceptsText(automaton, text))).toEqual([]);
}

describe("the JSON of a schema", () => {
  it("has one optional space after colons and commas and no other white space", () => {
    const schema = { properties: { a: { type: "null" }, b: { items: { type: "null" } } }, required: ["a", "b"] };
    expectTexts(
      schema,
      ['{"a":null,"b":[]}', '{"a": null, "b": [null, null,null]}'],
      ['{ "a":null,"b":[]}', '{"a" :null,"b":[]}', '{"a":null ,"b":[]}', '{"a":  null,"b":[]}', '{"a":null,"b":[]} '],
    );
  });

  it("has properties in the order of the schema, and those that are not required at will", () => {
    const integer = { type: "integer" };
    const schema = { type: "object", properties: { a: integer, b: integer, c: integer }, required: ["b"] };
    expectTexts(
      schema,
      ['{"b":1}', '{"a":1,"b":2}', '{"b":1,"c":2}', '{"a":1,"b":2,"c":3}'],
      ["{}", '{"a":1}', '{"b":1,"a":2}', '{"a":1,"c":2}', '{"b":1,"b":1}', '{"b":1,}', '{,"b":1}', '{"b":1,"d":1}'],
    );
    expectTexts({ properties: { a: integer, b: integer } }, ["{}", '{"b":1}', '{"a":1}'], ['{"a":1"b":1}']);
    expectTexts({ type: "object", properties: {} }, ["{}"], ['{"a":1}']);
  });

  it("takes any object for one without properties, unless that is closed", () => {
    expectTexts({ type: "object" }, ["{}", '{"x":[1,{"y":{}}]}'], ["[]"]);
    expectTexts({ type: "object", additionalProperties: true }, ['{"x":1}'], []);
    expectTexts({ type: "object", additionalProperties: false }, ["{}"], ['{"x":1}']);
    expect(() => compile({ type: "object", additionalProperties: false, minProperties: 1 })).toThrow(
      "no output can match",
    );
    const map = { type: "object", additionalProperties: { type: "null" }, minProperties: 1, maxProperties: 2 };
    expectTexts(map, ['{"":null}', '{"a":null,"b":null}'], ["{}", '{"a":1}', '{"a":null,"b":null,"c":null}']);
  });

  it("counts the characters of a string, however they are spelled", () => {
    expectTexts(
      { type: "string", minLength: 1, maxLength: 2 },
      ['"a"', '"ab"', '"\\n\\u00e9"', '"😀😀"', '"\\/\\uFFFF"', '"\\\\\\""', '"\u007f"'],
      ['""', '"abc"', '"\\ud83d\\ude00"', '"\\uD800"', '"a', '"\n"', '"\\x"', '"\\u12"'],
    );
  });

  it("finds a pattern anywhere in a string unless it has anchors, and escapes as JSON.stringify does", () => {
    expectTexts({ pattern: "b" }, ['"b"', '"abc"', '"\\n\\"b\\u001f"'], ['"a"', '"\\u0062"', '"\\u001Fb"', '"\\/b"']);
    expectTexts({ pattern: "^b" }, ['"bc"'], ['"ab"']);
    expectTexts({ pattern: "b$" }, ['"ab"'], ['"ba"']);
    expectTexts({ pattern: "^[\\v\\x1b]$" }, ['"\\u000b"', '"\\u001b"'], ['"\\u001B"', '"\\u0011"']);
    expectTexts({ pattern: "^\\v$" }, ['"\\u000b"'], ['"\\u001b"']);
    expectTexts({ pattern: "^a$|c" }, ['"a"', '"bcb"'], ['"ab"', '"ba"']);
    expectTexts(
      { pattern: '^["\\\\\\n\\x01]$' },
      ['"\\""', '"\\\\"', '"\\n"', '"\\u0001"'],
      ['"\\u000a"', '"a"', '"\\u0002"'],
    );
  });

  it("spells the values of enum and const as JSON.stringify does", () => {
    const value = { s: 'é"\n', list: [1.5, -0, 1e21, [], {}], deep: { t: true } };
    expectTexts({ const: value }, [JSON.stringify(value), JSON.stringify(value).replaceAll(",", ", ")], ["{}"]);
    expectTexts({ enum: ["a", 1, null] }, ['"a"', "1", "null"], ['"b"', "2", "a"]);
    expectTexts({ type: ["string", "null"], enum: ["a", 1, null] }, ['"a"', "null"], ["1"]);
    expectTexts({ type: "number", enum: [1.5, "x", 2] }, ["1.5", "2"], ['"x"']);
    expectTexts({ type: "integer", enum: [1.5, 2] }, ["2"], ["1.5"]);
  });

  it("takes any type of a list, each with its own keywords", () => {
    const schema = { type: ["integer", "string", "array"], maximum: 5, maxLength: 1, maxItems: 1 };
    expectTexts(schema, ["5", '"a"', "[null]"], ["6", '"ab"', "[1,2]", "null", "1.5"]);
  });

  it("follows references, also twice and with escaped names", () => {
    const schema = {
      $defs: { "a/b": { type: "null" }, two: { prefixItems: [{ $ref: "#/$defs/a~1b" }, { $ref: "#/$defs/a~1b" }] } },
      definitions: { "é x": { $ref: "#/$defs/two" } },
      anyOf: [{ $ref: "#/definitions/%C3%A9%20x" }, { $ref: "#/$defs/two/prefixItems/0" }],
    };
    expectTexts(schema, ["[null,null]", "[null]", "[]", "null"], ["[null,null,null]", "1"]);
  });

  it("ignores keywords that only describe", () => {
    const notes = { title: "t", description: "d", default: 1, examples: [2], $schema: "s", $id: "i", $comment: "c" };
    expect(compile({ type: "null", ...notes, deprecated: true, readOnly: true, writeOnly: true })).toEqual(
      compile({ const: null }),
    );
    expect(compile(notes)).toEqual(compile(true));
  });

  it("has the items of a tuple in order and closes it where items is absent or false", () => {
    const prefixItems = [{ type: "null" }, { type: "boolean" }];
    expectTexts({ prefixItems }, ["[]", "[null]", "[null,true]"], ["[true]", "[null,true,1]"]);
    expectTexts({ prefixItems, items: false, minItems: 2 }, ["[null,true]"], ["[]", "[null]", "[null,true,1]"]);
    const open = { prefixItems, items: { type: "integer" }, minItems: 3, maxItems: 4 };
    expectTexts(open, ["[null,true,1]", "[null,true,1,2]"], ["[null,true]", "[null,true,1,2,3]", "[null,1,1]"]);
    expectTexts({ prefixItems, maxItems: 1 }, ["[]", "[null]"], ["[null,true]"]);
    expectTexts({ type: "array", maxItems: 0 }, ["[]"], ["[1]"]);
    expectTexts({ type: "array", items: false }, ["[]"], ["[1]"]);
  });

  it("tells branches of oneOf apart by type, values or a required property", () => {
    const tagged = (tag: unknown) => ({ type: "object", properties: { tag }, required: ["tag"] });
    const schema = {
      $defs: { a: tagged({ const: "a" }), b: tagged({ enum: ["b", "c"] }), n: tagged({ type: "null" }) },
      oneOf: [{ $ref: "#/$defs/a" }, { $ref: "#/$defs/b" }, { $ref: "#/$defs/n" }, { type: ["number", "string"] }],
    };
    expectTexts(schema, ['{"tag":"a"}', '{"tag":"c"}', '{"tag":null}', "1.5", '""'], ['{"tag":"d"}', "{}", "null"]);
  });
});

describe("integers within bounds", () => {
  it("are exactly those, in their one spelling", () => {
    const random = new Random(4);
    for (let i = 0; i < 150; i++) {
      const minimum = random.integer(-1200, 1200);
      const maximum = minimum + random.integer(0, random.pick([3, 30, 2000]));
      const automaton = compile({ type: "integer", minimum, maximum });
      const accepted = Array.from({ length: 5000 }, (_, j) => j - 2500).filter((n) =>
        acceptsText(automaton, String(n)),
      );
      const expected = Array.from({ length: maximum - minimum + 1 }, (_, j) => minimum + j);
      expect(accepted).toEqual(expected.filter((n) => n >= -2500 && n < 2500));
      for (const text of ["-0", "00", "007", "+1", "1.0", "1e1", "", "-"])
        expect(acceptsText(automaton, text)).toBe(false);
    }
  });

  it("may be open to one side and as large as a double holds exactly", () => {
    expectTexts(
      { type: "integer", minimum: 98 },
      ["98", "99", "100", "12345678901234567890"],
      ["97", "9", "-98", "098"],
    );
    expectTexts({ type: "integer", exclusiveMaximum: -5 }, ["-6", "-10", "-99999"], ["-5", "-1", "0", "6"]);
    const limit = Number.MAX_SAFE_INTEGER;
    const schema = { type: "integer", minimum: -limit, maximum: limit };
    expectTexts(schema, [String(limit), String(-limit), "0"], ["9007199254740992", "-9007199254740992"]);
    expectTexts({ type: "integer" }, ["0", "-1", "123"], ["-0", "01", "1.5", "1e2", ""]);
  });
});

describe("numbers", () => {
  it("are those of JSON that a double holds", () => {
    const accepted = ["0", "-0", "1.50", "-12.25", "1e5", "1E+05", "1.5e-300", "9.9e307", "5e-324", "0.1", "0e0"];
    expectTexts({ type: "number" }, accepted, ["01", ".5", "1.", "+1", "1e", "1e308", "12e3", "NaN", "-", "1e1000"]);
  });
});

describe("formats", () => {
  const ajv = new Ajv2020();
  addFormats.default(ajv);
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    [
      "date",
      ["2024-02-29", "2000-02-29", "1999-12-31"],
      ["2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "2024-1-1"],
    ],
    ["time", ["23:59:59Z", "00:00:00.5+23:59"], ["24:00:00Z", "12:60:00Z", "12:00:60Z", "12:00:00", "12:00Z"]],
    ["date-time", ["2024-02-29T00:00:00Z"], ["2024-02-30T00:00:00Z", "2024-02-29 00:00:00Z", "2024-02-29"]],
    [
      "uuid",
      ["01234567-89ab-cdef-ABCD-0123456789ab"],
      ["0123456789abcdefABCD0123456789ab", "01234567-89ab-cdef-ABCD-0123456789ag"],
    ],
    ["ipv4", ["0.0.0.0", "255.255.255.255", "9.99.199.249"], ["256.0.0.0", "1.2.3", "01.2.3.4", "1.2.3.4.5"]],
    ["email", ["a@b.co", "x.y+z@sub.example.org"], ["a@b", "@b.co", "a..b@c.de", "a@-b.co", "a b@c.de"]],
  ];

  it.each(cases)("%s", (format, accepted, refused) => {
    expectTexts(
      { type: "string", format },
      accepted.map((text) => `"${text}"`),
      refused.map((text) => `"${text}"`),
    );
    const validate = ajv.compile({ type: "string", format });
    const automaton = compile({ type: "string", format });
    const random = new Random(5);
    for (let i = 0; i < 500; i++) {
      const text = decode(walk(automaton, random, 40));
      if (!validate(JSON.parse(text))) expect.fail(`${text} is not a ${format}`);
    }
  });
});

describe("what is reasonable", () => {
  const many = (count: number, schema: unknown) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`property_${i}`, schema]));
  it.each<[string, unknown]>([
    ["a string of 2000 characters", { type: "string", maxLength: 2000 }],
    ["30 properties, none required", { properties: many(30, { type: ["string", "number", "null"] }) }],
    [
      "30 required strings of 60 characters",
      { properties: many(30, { maxLength: 60 }), required: Object.keys(many(30, 0)) },
    ],
    ["100 objects", { items: { properties: { id: { type: "integer" }, ok: { type: "boolean" } } }, maxItems: 100 }],
    ["100 short strings", { items: { type: "string", maxLength: 10 }, maxItems: 100 }],
    ["10 open values", { type: "array", maxItems: 10 }],
    ["an enum of 1000", { enum: Array.from({ length: 1000 }, (_, i) => `value ${i * 7919}`) }],
  ])("fits: %s", (_, schema) => {
    expect(compile(schema).numStates).toBeGreaterThan(10);
  });
});
