import { describe, expect, it } from "vitest";
import { MIN_CACHED_LENGTH, PrefixCache } from "../../src/engine/prefix-cache.js";
import { EngineHarness, runAlone } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";

/** Room for a few of the fake runner's states of about a kilobyte. */
const CACHE = { prefixCacheBytes: 10_000 };

const prompt = (length: number, tail = ""): Uint16Array =>
  Uint16Array.from([...Array.from({ length }, (_, i) => (i * 7) % 251), ...Buffer.from(tail)]);

/** Runs requests one after the other; returns how many prompt bytes each found cached. */
async function cachedBytes(harness: EngineHarness, requests: Parameters<typeof makeRequest>[0][]): Promise<number[]> {
  const found: number[] = [];
  for (const fields of requests) {
    const key = harness.submit(makeRequest(fields));
    await harness.runToEnd();
    const { last } = harness.outputOf(key);
    if (last.type !== "finished") throw new Error(last.type);
    found.push(last.usage.cachedBytes);
  }
  return found;
}

describe("the prefix cache", () => {
  it("reuses the state of an equal prompt up to its last patch border", async () => {
    const runner = new FakeRunner({ patchLength: 8 });
    const harness = new EngineHarness(runner, CACHE);
    expect(await cachedBytes(harness, [{ prompt: prompt(100) }, { prompt: prompt(100) }])).toEqual([0, 96]);
    expect(runner.numPrefilled).toBe(96);
  });

  it("goes on from prompt and output together, as the next turn of a conversation does", async () => {
    const runner = new FakeRunner({ patchLength: 8 });
    const harness = new EngineHarness(runner, CACHE);
    const first = harness.submit(makeRequest({ prompt: prompt(100), stop: { maxNewBytes: 100 } }));
    await harness.runToEnd();
    const next = Uint16Array.from([...prompt(100), ...harness.outputOf(first).ids, 1, 2, 3]);
    expect(await cachedBytes(harness, [{ prompt: next }])).toEqual([192]); // 199 ids were fed
  });

  it("takes a state where a prompt branches off, so that the third prompt of a kind finds it", async () => {
    const harness = new EngineHarness(new FakeRunner({ patchLength: 8 }), CACHE);
    const requests = ["first question", "second question", "third question"].map((tail) => ({
      prompt: prompt(200, tail),
    }));
    expect(await cachedBytes(harness, requests)).toEqual([0, 0, 200]);
  });

  it.each([
    [
      "salts differ",
      { prompt: prompt(100), more: { cacheSalt: "a" } },
      { prompt: prompt(100), more: { cacheSalt: "b" } },
    ],
    ["one has no salt", { prompt: prompt(100), more: { cacheSalt: "a" } }, { prompt: prompt(100) }],
    ["an early byte differs", { prompt: prompt(100) }, { prompt: Uint16Array.from([9, ...prompt(99)]) }],
    ["it is too short", { prompt: prompt(MIN_CACHED_LENGTH) }, { prompt: prompt(MIN_CACHED_LENGTH) }],
    ["the prompt is scored", { prompt: prompt(100) }, { prompt: prompt(100), more: { promptScoring: SCORING() } }],
  ])("shares nothing when %s", async (_, first, second) => {
    const harness = new EngineHarness(new FakeRunner({ patchLength: 8 }), CACHE);
    expect(await cachedBytes(harness, [first, second])).toEqual([0, 0]);
  });

  it("keeps within its memory, dropping what was used longest ago", async () => {
    const harness = new EngineHarness(new FakeRunner({ patchLength: 8 }), { prefixCacheBytes: 4_500 });
    const numbered = (n: number): { prompt: Uint16Array } => ({ prompt: Uint16Array.from([n, ...prompt(99)]) });
    // Three states fit; 1 is used again before the fourth comes, so 2 goes.
    expect(await cachedBytes(harness, [1, 2, 3, 1, 4, 1, 3, 4, 2].map(numbered))).toEqual([
      0, 0, 0, 96, 0, 96, 96, 96, 0,
    ]);
    const { bytes, numEntries, numQueries, numHits } = harness.engine.stats().prefixCache;
    expect(bytes).toBeLessThanOrEqual(4_500);
    expect(numEntries).toBe(3);
    expect([numQueries, numHits]).toEqual([9, 4]);
  });

  it("is off with no memory", async () => {
    const harness = new EngineHarness(new FakeRunner({ patchLength: 8 }), { prefixCacheBytes: 0 });
    expect(await cachedBytes(harness, [{ prompt: prompt(100) }, { prompt: prompt(100) }])).toEqual([0, 0]);
    expect(harness.engine.stats().prefixCache).toMatchObject({ numEntries: 0, numQueries: 0, bytes: 0 });
  });

  it("does not keep a state larger than itself", () => {
    const cache = new PrefixCache(100);
    const snapshot = { length: 80, crossedAt: 80, recent: new Uint16Array(512), contexts: [], stages: [] };
    cache.add("", prompt(80), snapshot);
    expect(cache.stats()).toMatchObject({ numEntries: 0, bytes: 0 });
  });

  it("changes no output: random requests over shared prefixes give what each gives alone", async () => {
    const random = makeRandom(3);
    for (const patchLength of [1, 3, 8]) {
      const harness = new EngineHarness(new FakeRunner({ patchLength, numSlots: 3 }), CACHE);
      const requests = Array.from({ length: 60 }, (_, i) => {
        const base = prompt(60 + 30 * random(4));
        const tail = prompt(random(40)).map((id) => id ^ (random(3) << 6));
        return makeRequest({
          prompt: Uint16Array.from([...base, ...tail]),
          sampling: { temperature: 1, seed: BigInt(i) },
          stop: { maxNewBytes: random(90) },
        });
      });
      const keys: number[] = [];
      for (const request of requests) {
        keys.push(harness.submit(request));
        for (let k = random(4); k > 0; k--) await harness.engine.step();
        if (random(8) === 0) harness.engine.abort(keys[random(keys.length)]!);
      }
      await harness.runToEnd();
      expect(harness.engine.stats().prefixCache.numHits).toBeGreaterThan(5);
      for (const [i, key] of keys.entries()) {
        const output = harness.outputOf(key);
        const alone = await runAlone(new FakeRunner({ patchLength }), requests[i]!);
        if (output.last.type === "finished" && output.last.reason === "abort") {
          expect(alone.ids.slice(0, output.ids.length)).toEqual(output.ids);
        } else expect(output.ids).toEqual(alone.ids);
      }
    }
  });
});

function SCORING() {
  return { numTop: 0, entropy: false };
}
