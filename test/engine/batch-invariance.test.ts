import { describe, expect, it } from "vitest";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import type { ModelRunner } from "../../src/engine/model-runner-interface.js";
import { bundleNames, loadTestBundle, openRunner } from "../test-bundles.js";
import { EngineHarness, runAlone } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";

type Random = ReturnType<typeof makeRandom>;

/** A request with random prompt, length, sampling and stops, within a model's limits. */
function randomRequest(random: Random, maxLength: number): GenerationRequest {
  const promptLength = random(3) === 0 ? random(4) : random(maxLength >> 1);
  return makeRequest({
    prompt: Uint16Array.from({ length: promptLength }, () => 1 + random(250)),
    sampling: {
      temperature: [0, 0.7, 1.2][random(3)]!,
      topK: [0, 20][random(2)]!,
      topP: [1, 0.9][random(2)]!,
      repetitionPenalty: [1, 1.2][random(2)]!,
      seed: BigInt(random(2 ** 31)),
    },
    stop: {
      maxNewBytes: 1 + random(maxLength >> 1),
      stopSequences: random(2) ? [Uint8Array.of(random(256)), Uint8Array.of(random(256), random(256))] : [],
    },
    ...(random(2) ? { numLogprobs: 2 } : {}),
  });
}

/** Runs requests that come in at random times, with others that are aborted on the way, and compares each with itself alone. */
async function compareWithAlone(runner: ModelRunner, random: Random, count: number, maxLength: number): Promise<void> {
  const harness = new EngineHarness(runner);
  const requests = new Map<number, GenerationRequest>();
  const doomed: number[] = [];
  while (requests.size < count || harness.engine.hasWork) {
    if (requests.size < count && random(3) > 0) {
      const request = randomRequest(random, maxLength);
      requests.set(harness.submit(request), request);
    }
    if (random(5) === 0 && requests.size < count) doomed.push(harness.submit(randomRequest(random, maxLength)));
    if (random(4) === 0 && doomed.length > 0) harness.engine.abort(doomed[random(doomed.length)]!);
    await harness.engine.step();
  }
  for (const [key, request] of requests) {
    const { ids, logprobs, last } = harness.outputOf(key);
    const alone = await runAlone(runner, request);
    expect(ids).toEqual(alone.ids);
    expect(logprobs).toEqual(alone.logprobs);
    expect(last.type).toBe("finished");
  }
}

describe("a request's bytes and log-probs do not depend on its neighbours", () => {
  it.each([1, 5, 8, 40])("with a model that hashes all it is fed (patches of %i)", async (patchLength) => {
    for (let trial = 0; trial < 20; trial++) {
      const runner = new FakeRunner({ numSlots: 5, patchLength });
      await compareWithAlone(runner, makeRandom(trial), 16, 200);
    }
  });

  it.each(bundleNames)("with the bundle %s", async (name) => {
    const { info } = await loadTestBundle(name);
    const runner = await openRunner(name, 5);
    try {
      await compareWithAlone(runner, makeRandom(77), 16, Math.min(info.maxLength ?? 96, 96));
    } finally {
      runner.dispose();
    }
  });
});
