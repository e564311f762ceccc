import { describe, expect, it } from "vitest";
import { EngineHarness, runAlone } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRequest } from "./requests.js";

const prompt = Uint16Array.from({ length: 100 }, (_, i) => (i * 11) % 256);
const PREFILLED = 96; // patches of 8

function members(size: number, more: (k: number) => object = () => ({})) {
  return Array.from({ length: size }, (_, k) =>
    makeRequest({
      prompt,
      sampling: { temperature: 1, seed: BigInt(k) },
      stop: { maxNewBytes: 40 },
      more: { group: { id: "g", size }, ...more(k) },
    }),
  );
}

async function expectAsAlone(
  harness: EngineHarness,
  keys: number[],
  requests: ReturnType<typeof members>,
): Promise<void> {
  for (const [i, key] of keys.entries()) {
    expect(harness.outputOf(key).ids).toEqual((await runAlone(new FakeRunner(), requests[i]!)).ids);
  }
}

describe("sequences with one prompt", () => {
  it.each([2, 4, 16])(
    "compute it once, with slots for all of them and without (4 slots, %i sequences)",
    async (size) => {
      const runner = new FakeRunner();
      const harness = new EngineHarness(runner);
      const requests = members(size);
      const keys = requests.map((request) => harness.submit(request));
      await harness.runToEnd();
      await expectAsAlone(harness, keys, requests);
      expect(runner.numPrefilled).toBe(PREFILLED);
    },
  );

  it("compute it once also when the others come later", async () => {
    const runner = new FakeRunner();
    const harness = new EngineHarness(runner);
    const requests = members(3);
    const keys: number[] = [];
    for (const request of requests) {
      keys.push(harness.submit(request));
      await harness.engine.step();
      await harness.engine.step();
    }
    await harness.runToEnd();
    await expectAsAlone(harness, keys, requests);
    expect(runner.numPrefilled).toBe(PREFILLED);
  });

  it("go on when the one that computes it is aborted or fails", async () => {
    for (const mode of ["abort", "fail"]) {
      let numCalls = 0;
      const runner = new FakeRunner({
        onPrefill: () => {
          harness.clock.seconds += 1;
          if (mode === "fail" && numCalls++ === 1) throw new Error("broken");
        },
      });
      const harness = new EngineHarness(runner);
      const requests = members(3);
      const keys = requests.map((request) => harness.submit(request));
      await harness.engine.step();
      if (mode === "abort") harness.engine.abort(keys[0]!);
      await harness.runToEnd();
      expect(harness.outputOf(keys[0]!).ids).toEqual([]);
      await expectAsAlone(harness, keys.slice(1), requests.slice(1));
      expect(harness.engine.stats().numRunning).toBe(0);
    }
  });

  it("go on with what the aborted one has computed and left in the prefix cache", async () => {
    const long = Uint16Array.from({ length: 2000 }, (_, i) => (i * 11) % 256);
    const runner = new FakeRunner({ onPrefill: () => (harness.clock.seconds += 1) });
    const harness = new EngineHarness(runner, { prefixCacheBytes: 100_000 });
    const keys = members(3).map((request) => harness.submit({ ...request, prompt: long }));
    await harness.engine.step();
    expect(runner.numPrefilled).toBeGreaterThan(0);
    expect(runner.numPrefilled).toBeLessThan(1900);
    harness.engine.abort(keys[0]!);
    await harness.runToEnd();
    expect(runner.numPrefilled).toBe(1992); // whole patches of 8 that leave at least an id
    expect(harness.outputOf(keys[1]!).ids).toHaveLength(40);
  });

  it("are scored whole, whoever else has computed the prompt", async () => {
    const promptScoring = { numTop: 0, entropy: false };
    for (const scored of [0, 1]) {
      const harness = new EngineHarness(new FakeRunner());
      const requests = members(3, (k) => (k === scored ? { promptScoring } : {}));
      const keys = requests.map((request) => harness.submit(request));
      await harness.runToEnd();
      await expectAsAlone(harness, keys, requests);
      expect(harness.outputOf(keys[scored]!).promptLogprobs).toHaveLength(100);
    }
  });

  it("must have one prompt", () => {
    const harness = new EngineHarness(new FakeRunner());
    harness.submit(makeRequest({ prompt, more: { group: { id: "g", size: 2 } } }));
    const other = makeRequest({ prompt: prompt.slice(1), more: { group: { id: "g", size: 2 } } });
    expect(() => harness.submit(other)).toThrow("same prompt");
    expect(harness.engine.stats().numWaiting).toBe(1); // nothing of the other is left
  });

  it("are not noted when the queue refuses them", async () => {
    const harness = new EngineHarness(new FakeRunner({ numSlots: 1 }), { maxWaiting: 1 });
    const kept = harness.submit(makeRequest());
    harness.submit(makeRequest());
    expect(() => harness.submit(makeRequest({ prompt, more: { group: { id: "g", size: 2 } } }))).toThrow("waiting");
    await harness.runToEnd();
    // The group is still to begin: its prompt may be any.
    harness.submit(makeRequest({ prompt: prompt.slice(1), more: { group: { id: "g", size: 2 } } }));
    await harness.runToEnd();
    expect(harness.outputOf(kept).ids).toHaveLength(8);
  });
});
