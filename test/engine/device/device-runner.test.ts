import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GenerationRequest } from "../../../src/core/generation-request.js";
import { createDeviceRunner } from "../../../src/engine/device/device-model-runner.js";
import type { PatchRunner } from "../../../src/engine/model-runner-interface.js";
import { MIN_CACHED_LENGTH } from "../../../src/engine/prefix-cache.js";
import { openHostDeviceBackend } from "../../../src/runtime/host-device-backend.js";
import { referenceLibrary } from "../../native-library.js";
import { bundleNames, loadTestBundle, randomIds, readGolden } from "../../test-bundles.js";
import { EngineHarness, type Output } from "../engine-harness.js";
import { expectResumable } from "../every-end.js";
import { makeRandom, makeRequest } from "../requests.js";

const bundles = await Promise.all(bundleNames.map(async (name) => ({ name, bundle: await loadTestBundle(name) })));
const onDevice = bundles.filter(({ bundle }) => bundle.manifest.cuda !== undefined);

async function run(runner: PatchRunner, ...requests: GenerationRequest[]): Promise<Output[]> {
  const harness = new EngineHarness(runner);
  const keys = requests.map((request) => harness.submit(request));
  await harness.runToEnd();
  return keys.map((key) => harness.outputOf(key));
}

/**
 * Expects the same bytes, and log-probs that differ by rounding at most: products of few rows and of many are summed in
 * another order, and a prompt is fed by either.
 */
function expectSame(actual: Output, expected: Output): void {
  const said = ({ ids, last }: Output) => {
    const { type, reason, usage } = last as unknown as Record<string, unknown>;
    return { ids, type, reason, usage };
  };
  expect(said(actual)).toEqual(said(expected));
  expect(actual.logprobs).toHaveLength(expected.logprobs.length);
  for (const [i, { logprob, top }] of actual.logprobs.entries()) {
    expect(logprob).toBeCloseTo(expected.logprobs[i]!.logprob, 4);
    expect(top.map(({ id }) => id)).toEqual(expected.logprobs[i]!.top.map(({ id }) => id));
  }
}

it("there are bundles with graphs for a device", () => {
  expect(onDevice.length).toBeGreaterThanOrEqual(4);
});

describe.each(onDevice)("$name on a device", ({ name, bundle }) => {
  let runner: PatchRunner;
  const maxLength = Math.min(bundle.info.maxLength ?? 128, 128);
  beforeAll(async () => {
    const backend = openHostDeviceBackend(referenceLibrary());
    runner = await createDeviceRunner(bundle, { numSlots: 11, backend, maxPrefillSteps: 16 });
  }, 120_000);
  afterAll(() => runner.dispose());

  const randomRequest = (random: ReturnType<typeof makeRandom>): GenerationRequest =>
    makeRequest({
      prompt: randomIds(random(1e6), random(4) === 0 ? random(4) : random(maxLength >> 1)),
      sampling: {
        temperature: [0, 1][random(2)]!,
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

  it("continues as PyTorch's full forward does", async () => {
    const { cases } = readGolden(name);
    const requests = cases.map(({ prompt, greedy }) =>
      makeRequest({
        prompt: Uint16Array.from(prompt),
        stop: { maxNewBytes: greedy.length, ignoreEos: true },
        numLogprobs: 0,
      }),
    );
    const outputs = await run(runner, ...requests);
    for (const [i, { greedy, logprobs }] of cases.entries()) {
      expect(outputs[i]!.ids).toEqual(greedy);
      for (const [k, expected] of logprobs.entries()) {
        expect(Math.abs(outputs[i]!.logprobs[k]!.logprob - expected)).toBeLessThanOrEqual(1e-4);
      }
    }
  });

  it.each([0, 1])("scores as PyTorch's training loss does (%i new bytes)", async (maxNewBytes) => {
    const { ids, logprobs } = readGolden(name).scored;
    const [output] = await run(
      runner,
      makeRequest({
        prompt: Uint16Array.from(ids),
        stop: { maxNewBytes },
        more: { promptScoring: { numTop: 0, entropy: false } },
      }),
    );
    expect(output!.promptLogprobs).toHaveLength(ids.length);
    for (const [i, expected] of logprobs.entries()) {
      expect(Math.abs(output!.promptLogprobs[i]! - expected)).toBeLessThanOrEqual(1e-4);
    }
  });

  it("gives the same alone and among neighbours that come, go and are aborted", async () => {
    const random = makeRandom(5);
    const harness = new EngineHarness(runner);
    const requests = new Map<number, GenerationRequest>();
    while (requests.size < 40 || harness.engine.hasWork) {
      for (let n = random(4); n > 0 && requests.size < 40; n--) {
        const request = randomRequest(random);
        requests.set(harness.submit(request), request);
      }
      if (random(5) === 0 && requests.size < 40) harness.engine.abort(harness.submit(randomRequest(random)));
      await harness.engine.step();
    }
    for (const [key, request] of requests) {
      const [alone] = await run(runner, request);
      expectSame(harness.outputOf(key), alone!);
    }
  });

  it("gives the same computed and from the prefix cache", async () => {
    const prompt = randomIds(3, Math.floor(0.75 * maxLength));
    const request = (length: number) =>
      makeRequest({ prompt: prompt.subarray(0, length), stop: { maxNewBytes: maxLength >> 2 }, numLogprobs: 1 });
    const lengths = [prompt.length - 5, prompt.length, prompt.length - 1, prompt.length];
    const harness = new EngineHarness(runner, { prefixCacheBytes: 2 ** 26 });
    let cached = 0;
    for (const length of lengths) {
      const key = harness.submit(request(length));
      await harness.runToEnd();
      const output = harness.outputOf(key);
      const [alone] = await run(runner, request(length));
      const { usage } = output.last as { usage: { cachedBytes: number } };
      cached += usage.cachedBytes;
      expectSame({ ...output, last: { ...output.last, usage: { ...usage, cachedBytes: 0 } } as never }, alone!);
    }
    if (prompt.length > MIN_CACHED_LENGTH + 16) expect(cached).toBeGreaterThan(0);
  });

  it("gives the same in one piece and resumed from any length", async () => {
    const prompt = randomIds(8, maxLength >> 1);
    const stop = { maxNewBytes: maxLength >> 2 };
    const [whole] = await run(runner, makeRequest({ prompt, stop, numLogprobs: 1 }));
    for (let cut = 1; cut < prompt.length; cut += 3) {
      const first = makeRequest({
        prompt: prompt.subarray(0, cut),
        stop: { maxNewBytes: 0 },
        more: { returnState: true },
      });
      const [fed] = await run(runner, first);
      const { state } = fed!.last as unknown as { state: NonNullable<GenerationRequest["resume"]> };
      const rest = makeRequest({ prompt: prompt.subarray(cut), stop, numLogprobs: 1, more: { resume: state } });
      const [resumed] = await run(runner, rest);
      expect(resumed!.ids).toEqual(whole!.ids);
    }
  });

  it("goes on as the whole sequence, however and wherever one has ended", { timeout: 120_000 }, async () => {
    const compare = (actual: Output, expected: Output, label: string): void => {
      expect(actual.ids, label).toEqual(expected.ids);
      expect(actual.promptLogprobs, label).toHaveLength(expected.promptLogprobs.length);
      const all = ({ logprobs, promptLogprobs }: Output) => [...promptLogprobs, ...logprobs.map((one) => one.logprob)];
      const expectedLogprobs = all(expected);
      for (const [i, logprob] of all(actual).entries()) expect(logprob, label).toBeCloseTo(expectedLogprobs[i]!, 4);
    };
    const numTried = await expectResumable(runner, { mostGenerated: runner.patchLength + 1, compare });
    expect(numTried["a stop id"]).toBeGreaterThan(runner.patchLength);
    expect(numTried["an id that fits no match"]).toBeGreaterThan(runner.patchLength);
  });

  it("refuses states of other shapes", async () => {
    const prompt = randomIds(6, Math.min(3 * bundle.manifest.architecture.bytes_per_step[0]!, maxLength - 1));
    const more = { returnState: true };
    const [fed] = await run(runner, makeRequest({ prompt, stop: { maxNewBytes: 0 }, more }));
    const { state } = fed!.last as unknown as { state: NonNullable<GenerationRequest["resume"]> };
    const { snapshot } = state;
    for (const [i, states] of snapshot.stages.entries()) {
      for (const [k, values] of states.entries()) {
        // Of a cache, one position of one head less: the rest would be read from what the place held before.
        const changed = states.with(k, values.subarray(0, values.length - 1));
        expect(runner.fits({ ...snapshot, stages: snapshot.stages.with(i, changed) })).toBe(false);
      }
    }
    // The states of one length, and another length.
    const isCached = bundle.manifest.stages.at(-2)!.states.some(({ reset }) => reset === "none");
    const length = snapshot.length - runner.patchLength;
    expect(runner.fits({ ...snapshot, length, crossedAt: length })).toBe(!isCached);
    expect(runner.fits(snapshot)).toBe(true);
    expect(runner.fits({ ...snapshot, contexts: [] })).toBe(false);
    expect(runner.fits({ ...snapshot, recent: snapshot.recent.slice(1) })).toBe(false);
    expect(runner.fits({ ...snapshot, stages: snapshot.stages.map((states) => states.slice(1)) })).toBe(false);
    const longer = snapshot.stages.map((states) => states.map((values) => new Float32Array(values.length + 1)));
    expect(runner.fits({ ...snapshot, stages: longer })).toBe(false);
  });
});

it("a bundle without graphs for a device is refused by name", async () => {
  const { bundle } = bundles.find((other) => other.bundle.manifest.cuda === undefined)!;
  const backend = openHostDeviceBackend(referenceLibrary());
  await expect(createDeviceRunner(bundle, { numSlots: 1, backend })).rejects.toThrow(/no graphs for CUDA.*--cuda/);
});
