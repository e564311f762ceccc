import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import { Random } from "../constraints/random.js";
import { randomPattern } from "../constraints/random-pattern.js";
import { randomSchema } from "../constraints/random-schema.js";
import { EngineHarness } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRequest } from "./requests.js";

const NUM_PATTERNS = 2000;
const NUM_SCHEMAS = 1000;

/** The automaton of a source, unless its language is empty or too large. */
function compile(source: Parameters<typeof compileConstraint>[0]): ByteAutomaton | undefined {
  try {
    return compileConstraint(source, "constraint");
  } catch {
    return undefined;
  }
}

/** One output under the constraint at a random temperature, end id and length limit, the tightest included. */
async function generate(harness: EngineHarness, automaton: ByteAutomaton, random: Random) {
  const shortest = automaton.distance[0]!;
  const key = harness.submit(
    makeRequest({
      prompt: "x",
      sampling: { temperature: random.pick([0, 0.5, 2]), seed: BigInt(random.integer(0, 1e9)) },
      stop: {
        maxNewBytes: Math.max(1, shortest + random.pick([0, 0, 1, 2, 10, 40])),
        minNewBytes: random.pick([0, 0, 3]),
      },
      more: { constraint: { automaton, endsAtMismatch: true } },
    }),
  );
  await harness.runToEnd();
  const { ids, last } = harness.outputOf(key);
  harness.events.delete(key);
  expect(last).toMatchObject({ type: "finished" });
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(ids));
}

describe("an output under a constraint", () => {
  it(`is a whole match: RegExp accepts it (${NUM_PATTERNS} random patterns)`, { timeout: 120_000 }, async () => {
    const random = new Random(11);
    const harness = new EngineHarness(new FakeRunner({ info: { vocabularySize: 257, eosId: 256 } }));
    let numChecked = 0;
    for (let i = 0; i < NUM_PATTERNS; i++) {
      const pattern = randomPattern(random);
      const automaton = compile({ kind: "regex", pattern });
      if (automaton === undefined) continue;
      const text = await generate(harness, automaton, random);
      expect(text, pattern).toMatch(new RegExp(`^(?:${pattern})$`, "u"));
      numChecked++;
    }
    expect(numChecked).toBeGreaterThan(0.8 * NUM_PATTERNS);
  });

  it(`is valid: JSON.parse and Ajv accept it (${NUM_SCHEMAS} random schemas)`, { timeout: 120_000 }, async () => {
    const random = new Random(12);
    const harness = new EngineHarness(new FakeRunner());
    let numChecked = 0;
    for (let i = 0; i < NUM_SCHEMAS; i++) {
      const { schema } = randomSchema(random, random.integer(0, 2));
      const automaton = compile({ kind: "json_schema", schema });
      if (automaton === undefined) continue;
      const text = await generate(harness, automaton, random);
      const validate = new Ajv2020({ strict: false, formats: FORMATS }).compile(schema as object);
      expect(validate(JSON.parse(text)), `${JSON.stringify(schema)} ${text}`).toBe(true);
      numChecked++;
    }
    expect(numChecked).toBeGreaterThan(0.8 * NUM_SCHEMAS);
  });
});

/** Formats are checked where they are compiled. */
const FORMATS = Object.fromEntries(
  ["date", "time", "date-time", "uuid", "ipv4", "email"].map((name) => [name, true as const]),
);
