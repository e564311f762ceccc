import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import { Random } from "./random.js";
import { randomSchema } from "./random-schema.js";
import { acceptsText, decode, walk } from "./walk.js";

const NUM_SCHEMAS = 2000;

const ajv = new Ajv2020({ strict: false, logger: false });
addFormats.default(ajv);

describe("the automaton of a JSON schema", () => {
  it("makes only JSON that another validator accepts, and accepts every sample of the schema", () => {
    const random = new Random(2);
    let numTooLarge = 0;
    for (let i = 0; i < NUM_SCHEMAS; i++) {
      const { schema, sample } = randomSchema(random, random.integer(0, 3));
      const validate = ajv.compile(schema);
      const samples = Array.from({ length: 4 }, sample);
      for (const value of samples) {
        if (!validate(value)) expect.fail(`bad sample ${JSON.stringify(value)} of ${JSON.stringify(schema)}`);
      }
      const automaton = compileUnlessTooLarge(schema);
      if (automaton === undefined) {
        numTooLarge++;
        continue;
      }
      for (const value of samples) {
        const text = JSON.stringify(value);
        if (!acceptsText(automaton, text)) expect.fail(`${text} is refused by ${JSON.stringify(schema)}`);
      }
      for (let j = 0; j < 5; j++) {
        const text = decode(walk(automaton, random, random.integer(0, 60)));
        if (!validate(JSON.parse(text))) {
          expect.fail(`${text} is not ${JSON.stringify(schema)}: ${JSON.stringify(validate.errors)}`);
        }
      }
    }
    expect(numTooLarge).toBeLessThan(NUM_SCHEMAS / 50);
  });
});

function compileUnlessTooLarge(schema: unknown) {
  try {
    return compileConstraint({ kind: "json_schema", schema }, "schema");
  } catch (error) {
    expect(String(error)).toContain("needs more than");
    return undefined;
  }
}
