import { describe, expect, it } from "vitest";
import type { ModelRunner, PatchRunner } from "../../src/engine/model-runner-interface.js";
import { loadTestBundle, openRunner } from "../test-bundles.js";
import { type Output, runAlone } from "./engine-harness.js";
import { expectResumable } from "./every-end.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRequest } from "./requests.js";
import { StepwisePatchRunner } from "./stepwise-patch-runner.js";

function expectSame(actual: Output, { ids, logprobs, promptLogprobs }: Output, label: string): void {
  const said = { ids: actual.ids, logprobs: actual.logprobs, promptLogprobs: actual.promptLogprobs };
  expect(said, label).toEqual({ ids, logprobs, promptLogprobs });
}

/** One, two and three stages of every kind. */
const BUNDLES = [
  "mamba2",
  "transformer",
  "mamba2-transformer",
  "transformer-transformer",
  "mamba2-transformer-transformer",
  "gru-mix",
  "with-eos",
];
const eos = { vocabularySize: 259, eosId: 258 };
const FAKES: readonly (readonly [string, () => ModelRunner | PatchRunner])[] = [
  ["one stage", () => new FakeRunner({ patchLength: 1, info: { ...eos, numStages: 1 } })],
  ...[1, 3, 8].flatMap((patchLength) => {
    const fake = () => new FakeRunner({ patchLength, info: eos });
    return [
      [`patches of ${patchLength}`, fake],
      [`patches of ${patchLength} on a device`, () => new StepwisePatchRunner(fake())],
    ] as const;
  }),
];

describe("a sequence that has ended, however and wherever, goes on as the whole one, bit for bit", () => {
  it.each(FAKES)("with a model that hashes all it is fed: %s", { timeout: 120_000 }, async (_, open) => {
    const runner = open();
    const mostGenerated = runner.patchLength + 1;
    const numTried = await expectResumable(runner, { mostGenerated, compare: expectSame });
    for (const [end, count] of Object.entries(numTried)) expect(count, end).toBeGreaterThan(mostGenerated);
  });

  it.each(BUNDLES)("with the bundle %s", { timeout: 120_000 }, async (name) => {
    const { architecture } = (await loadTestBundle(name)).manifest;
    const runner = await openRunner(name, 2);
    try {
      const mostGenerated = architecture.bytes_per_step[0]! + 1;
      const numTried = await expectResumable(runner, { mostGenerated, compare: expectSame });
      if (runner.info.eosId !== undefined) expect(numTried["the model's end id"]).toBeGreaterThan(mostGenerated);
      expect(numTried["a stop id"]).toBeGreaterThan(mostGenerated);
      expect(numTried["an id that fits no match"]).toBeGreaterThan(mostGenerated);
    } finally {
      runner.dispose();
    }
  });
});

it("there is no state of a sequence without any ids", async () => {
  for (const numStages of [1, 2]) {
    const runner = new FakeRunner({ info: { numStages }, patchLength: numStages === 1 ? 1 : 8 });
    const request = makeRequest({ prompt: "", more: { returnState: true } });
    const { ids } = await runAlone(runner, request);
    const { last } = await runAlone(runner, { ...request, stop: { ...request.stop, stopIds: ids.slice(0, 1) } });
    expect(last).toMatchObject({ type: "finished", reason: "stop" });
    expect(last).not.toHaveProperty("state");
  }
});
