import { describe, expect, it } from "vitest";
import { makeRandom } from "../engine/requests.js";
import { type Choice, complete } from "./api.js";
import { type TestApp, untilIdle, useApp } from "./test-app.js";

const NUM_REQUESTS = 1000;
const NEIGHBOURS = 16;

/** No cache, one request at a time. */
const alone = useApp("mamba2-transformer-int8", { slots: 1, prefixCacheBytes: 0 });
const busy = useApp("mamba2-transformer-int8", { slots: NEIGHBOURS });

/** A request of any kind; prompts share beginnings, so that many are found in the cache. */
function randomBody(random: (bound: number) => number): object {
  const pick = <T>(...values: T[]): T => values[random(values.length)]!;
  const shared = "In the beginning was the word. ".repeat(random(8));
  const tail = Array.from({ length: random(40) }, () => random(256));
  return {
    prompt: [...Buffer.from(shared), ...tail],
    max_tokens: random(24),
    temperature: pick(0, 0.7, 1, 2),
    top_p: pick(1, 0.9, 0.3),
    top_k: pick(0, 1, 5, 50),
    min_p: pick(0, 0.1),
    repetition_penalty: pick(1, 1.3),
    presence_penalty: pick(0, 0.5),
    frequency_penalty: pick(0, -0.5),
    logit_bias: pick(null, { "65": 3, "66": -100 }),
    stop: pick<unknown>(null, "e", ["ab", [0]]),
    min_tokens: 0,
    seed: random(1_000_000),
    n: pick(1, 1, 1, 2),
    echo: pick(false, false, true),
    logprobs: pick(null, 0, 3),
    structured_outputs: pick(null, null, null, { regex: "[a-z ]*" }),
    utf8: pick(false, false, true),
    return_token_ids: true,
  };
}

async function choicesOf(app: TestApp, bodies: readonly object[]): Promise<Choice[][]> {
  return Promise.all(bodies.map(async (body) => (await complete(app, body)).choices as Choice[]));
}

describe("the same request gives the same bytes and log-probs", () => {
  it(`alone, among ${NEIGHBOURS} random neighbours, cold and from the prefix cache (${NUM_REQUESTS} requests)`, {
    timeout: 240_000,
  }, async () => {
    const random = makeRandom(2026);
    const bodies = Array.from({ length: NUM_REQUESTS }, () => randomBody(random));
    let numCached = 0;
    for (let first = 0; first < NUM_REQUESTS; first += NEIGHBOURS) {
      const group = bodies.slice(first, first + NEIGHBOURS);
      const expected: Choice[][] = [];
      for (const body of group) expected.push((await complete(alone(), body)).choices as Choice[]);
      expect(await choicesOf(busy(), group)).toEqual(expected);
      const again = await complete(busy(), group[0]!);
      expect(again.choices).toEqual(expected[0]);
      numCached += again.usage!.prompt_tokens_details.cached_tokens > 0 ? 1 : 0;
    }
    expect(numCached).toBeGreaterThan(10);
    expect((await busy().engine.stats()).prefixCache.numHits).toBeGreaterThan(NUM_REQUESTS / 10);
    await untilIdle(busy());
  });
});
