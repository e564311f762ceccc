import { describe, expect, it } from "vitest";
import { ConstraintCompiler } from "../../src/constraints/constraint-compiler.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import type { ModelRunner } from "../../src/engine/model-runner-interface.js";
import { bundleNames, loadTestBundle, openRunner } from "../test-bundles.js";
import { EngineHarness } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";
import { StepwisePatchRunner } from "./stepwise-patch-runner.js";

type Random = ReturnType<typeof makeRandom>;

const compiler = new ConstraintCompiler(8, 1 << 20);
const automata = ["([0-9]{1,3},){4,}", "[^]{3}|(a|b)*c?", "(yes|no|maybe)"].map((pattern) =>
  compiler.compile({ kind: "regex", pattern }, "regex"),
);

/** A request in which anything that the choice of a byte depends on may take part. */
function randomRequest(random: Random, maxLength: number, vocabularySize: number): GenerationRequest {
  const automaton = random(3) === 0 ? automata[random(automata.length)] : undefined;
  const promptLength = random(4) === 0 ? random(3) : random(maxLength >> 1);
  const maxNewBytes = random(8) === 0 ? 0 : 1 + random(maxLength >> 1);
  const returnState = random(2) === 0;
  return makeRequest({
    prompt: Uint16Array.from({ length: promptLength }, () => random(256)),
    sampling: {
      temperature: [0, 0.7, 1.2][random(3)]!,
      topK: [0, 20][random(2)]!,
      topP: [1, 0.9][random(2)]!,
      minP: [0, 0.05][random(2)]!,
      repetitionPenalty: [1, 1.2][random(2)]!,
      presencePenalty: random(2) * 0.4,
      frequencyPenalty: random(2) * -0.3,
      logitBias: new Map(random(2) ? [] : [[random(256), 4], [random(vocabularySize), -100]]), // biome-ignore format: a table
      // Beside a constraint they would leave nothing to choose, which fails with another word on a device.
      ...(random(4) === 0 && automaton === undefined ? { allowedIds: [65, 66, 67, 10, 200] } : {}),
      seed: BigInt(random(2 ** 31)) << BigInt(random(33)),
    },
    stop: {
      maxNewBytes: automaton === undefined ? maxNewBytes : Math.max(maxNewBytes, 1, automaton.distance[0]!),
      minNewBytes: [0, 5][random(2)]!,
      stopIds: random(2) ? [66] : [],
      stopSequences: random(2) ? [Uint8Array.of(random(256)), Uint8Array.of(67, 65)] : [],
      includeStop: random(2) === 0,
    },
    ...(random(2) ? { numLogprobs: random(3) } : {}),
    more: {
      ...(automaton === undefined ? {} : { constraint: { automaton, endsAtMismatch: random(2) === 0 } }),
      ...(random(4) === 0 && promptLength > 0 ? { promptScoring: { numTop: 2, entropy: true } } : {}),
      returnState,
      ...(returnState && random(2) === 0 ? { checkpointEvery: 7 } : {}),
    },
  });
}

/** What a request said, without times, and without what depends on how often output is handed out. */
function outcome(harness: EngineHarness, key: number) {
  const { ids, logprobs, promptLogprobs, last } = harness.outputOf(key);
  const { timings, ...rest } = last as unknown as Record<string, unknown>;
  // The fake model's snapshots know which reset of their slot they come from; that is no part of the state.
  const comparable = JSON.parse(JSON.stringify(rest, (name, value) => (name === "bornAtReset" ? undefined : value)));
  return { ids, logprobs, promptLogprobs, last: comparable };
}

async function comparePaths(runner: ModelRunner, random: Random, count: number, maxLength: number): Promise<void> {
  const patches = new StepwisePatchRunner(runner);
  const requests = Array.from({ length: count }, () => randomRequest(random, maxLength, runner.info.vocabularySize));
  const together = new EngineHarness(patches);
  const keys: number[] = [];
  while (keys.length < count || together.engine.hasWork) {
    if (keys.length < count && random(3) > 0) keys.push(together.submit(requests[keys.length]!));
    await together.engine.step();
  }
  expect(patches.numHeld).toBe(0);
  for (const [i, request] of requests.entries()) {
    const alone = new EngineHarness(runner);
    const key = alone.submit(request);
    await alone.runToEnd();
    expect(outcome(together, keys[i]!)).toEqual(outcome(alone, key));
  }
}

const bundles = await Promise.all(bundleNames.map(async (name) => ({ name, info: (await loadTestBundle(name)).info })));
const onDevices = bundles.filter(({ info }) => info.numStages > 1); // a device runs no others

describe("patches chosen on the device give what choosing byte by byte gives", () => {
  it.each([1, 3, 8, 40])("with a model that hashes all it is fed (patches of %i)", async (patchLength) => {
    for (let trial = 0; trial < 30; trial++) {
      const info = trial % 2 === 0 ? {} : { vocabularySize: 259, eosId: 258 };
      const runner = new FakeRunner({ numSlots: 5, patchLength, info });
      await comparePaths(runner, makeRandom(trial), 16, 150);
    }
  });

  it.each(onDevices)("with the bundle $name", async ({ name, info }) => {
    const runner = await openRunner(name, 5);
    try {
      await comparePaths(runner, makeRandom(78), 16, Math.min(info.maxLength ?? 96, 96));
    } finally {
      runner.dispose();
    }
  });
});
