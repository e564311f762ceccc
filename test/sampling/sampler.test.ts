import { describe, expect, it } from "vitest";
import { GREEDY, type SamplingParams } from "../../src/core/sampling-params.js";
import { Sampler } from "../../src/sampling/sampler.js";
import { SamplingHistory } from "../../src/sampling/sampling-history.js";
import { makeRandom } from "../engine/requests.js";
import { sampleNaively } from "./naive-sampler.js";

interface Case {
  readonly params?: Partial<SamplingParams>;
  readonly prompt?: number[];
  readonly output?: number[];
  readonly bannedIds?: number[];
}

function sample(logits: number[], { params, prompt = [], output = [], bannedIds = [] }: Case = {}): number {
  const history = new SamplingHistory({ ...GREEDY, ...params }, logits.length, Uint16Array.from(prompt));
  for (const id of output) history.record(id);
  return new Sampler(logits.length).sample(Float32Array.from(logits), 0, history, bannedIds);
}

/** How often each id is chosen over many positions of one seed, the output being kept out of the history. */
function frequencies(logits: number[], params: Partial<SamplingParams>, count: number): number[] {
  const history = new SamplingHistory(
    { ...GREEDY, temperature: 1, seed: 11n, ...params },
    logits.length,
    new Uint16Array(),
  );
  const sampler = new Sampler(logits.length);
  const row = Float32Array.from(logits);
  const counts = new Array(logits.length).fill(0);
  for (let i = 0; i < count; i++) {
    const id = sampler.sample(row, 0, history);
    counts[id]++;
    history.record(id);
  }
  return counts.map((n) => n / count);
}

function softmax(logits: number[], temperature = 1): number[] {
  const weights = logits.map((logit) => Math.exp(logit / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

describe("greedy", () => {
  it("takes the highest logit, the lowest id on a tie", () => {
    expect(sample([0, 3, -1, 3])).toBe(1);
    expect(sample([-5, -5, -5])).toBe(0);
  });

  it("reads the row at the given offset", () => {
    const history = new SamplingHistory(GREEDY, 3, new Uint16Array());
    expect(new Sampler(3).sample(Float32Array.of(9, 0, 0, 0, 1, 5), 3, history)).toBe(2);
  });

  it("adds the logit bias first", () => {
    expect(sample([0, 3, 0], { params: { logitBias: new Map([[2, 4]]) } })).toBe(2);
    expect(sample([0, 3, 0], { params: { logitBias: new Map([[1, -100]]) } })).toBe(0);
  });

  it("divides positive and multiplies negative logits of seen ids", () => {
    const params = { repetitionPenalty: 2 };
    expect(sample([1.2, 2, 0], { params, prompt: [1] })).toBe(0);
    expect(sample([1.2, 2, 0], { params, output: [1] })).toBe(0);
    expect(sample([-1.5, -1, -3], { params, prompt: [1] })).toBe(0);
    expect(sample([0.9, 2, 0], { params, prompt: [1] })).toBe(1);
  });

  it("counts presence once and frequency every time, in the output only", () => {
    expect(sample([0, 1], { params: { presencePenalty: 1.5 }, output: [1] })).toBe(0);
    expect(sample([0, 1], { params: { presencePenalty: 1.5 }, prompt: [1] })).toBe(1);
    expect(sample([0, 1], { params: { presencePenalty: 0.75 }, output: [1, 1] })).toBe(1);
    expect(sample([0, 1], { params: { frequencyPenalty: 0.75 }, output: [1] })).toBe(1);
    expect(sample([0, 1], { params: { frequencyPenalty: 0.75 }, output: [1, 1] })).toBe(0);
  });

  it("never takes a banned id, whatever its bias", () => {
    expect(sample([0, 3, 1], { bannedIds: [1], params: { logitBias: new Map([[1, 100]]) } })).toBe(2);
  });
});

describe("damaged logits", () => {
  it.each([
    { name: "a NaN", logits: [0, Number.NaN, 1] },
    { name: "a NaN in front", logits: [Number.NaN, 1, 1] },
    { name: "an infinity", logits: [0, Infinity, 1] },
    { name: "nothing but −∞", logits: [-Infinity, -Infinity] },
  ])("with $name are an error, not a byte", ({ logits }) => {
    expect(() => sample(logits)).toThrow(/not finite/);
    expect(() => sample(logits, { params: { temperature: 1 } })).toThrow(/not finite/);
  });
});

describe("random sampling", () => {
  const logits = [1, 0.5, 0, -1, 2];

  it.each([0.5, 1, 2])("follows the softmax at temperature %d", (temperature) => {
    const measured = frequencies(logits, { temperature }, 20_000);
    for (const [id, p] of softmax(logits, temperature).entries()) {
      expect(Math.abs(measured[id]! - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / 20_000));
    }
  });

  it.each([
    { name: "top-k", params: { topK: 2 }, kept: [0, 4] },
    { name: "top-k of 1", params: { topK: 1 }, kept: [4] },
    { name: "top-p", params: { topP: 0.6 }, kept: [0, 4] },
    { name: "a tiny top-p", params: { topP: 1e-9 }, kept: [4] },
    { name: "min-p", params: { minP: 0.2 }, kept: [0, 1, 4] },
    { name: "min-p of 1", params: { minP: 1 }, kept: [4] },
    { name: "top-p of what top-k kept", params: { topK: 2, topP: 0.75 }, kept: [0, 4] },
    { name: "top-p of what top-k kept, less", params: { topK: 2, topP: 0.7 }, kept: [4] },
  ])("keeps with $name exactly $kept, renormalised", ({ params, kept }) => {
    const measured = frequencies(logits, params, 10_000);
    const masked = softmax(logits.map((logit, id) => (kept.includes(id) ? logit : -Infinity)));
    for (const [id, p] of masked.entries()) {
      expect(Math.abs(measured[id]! - p)).toBeLessThanOrEqual(4 * Math.sqrt((p * (1 - p)) / 10_000));
    }
  });

  it("stops at the id with which top-p is reached exactly", () => {
    const measured = frequencies([1, 1, 1, 1], { topP: 0.5 }, 1000);
    expect(measured.map((f) => f > 0)).toEqual([true, true, false, false]);
  });

  it("breaks ties of top-k by the lowest ids", () => {
    const measured = frequencies([1, 1, 1, 1], { topK: 2 }, 1000);
    expect(measured.map((f) => f > 0)).toEqual([true, true, false, false]);
  });
});

describe("the sampler and the rule written naively", () => {
  it("agree on random logits, histories and parameters", () => {
    const random = makeRandom(5);
    for (let trial = 0; trial < 1500; trial++) {
      const vocabularySize = [2, 7, 256, 260, 512][trial % 5]!;
      // Coarse logits make ties common.
      const logits = Array.from({ length: vocabularySize }, () => Math.fround(random(trial % 2 ? 9 : 4000) / 4 - 1));
      const ids = (length: number) => Array.from({ length }, () => random(vocabularySize));
      const params: SamplingParams = {
        temperature: [0, 0.3, 1, 2][random(4)]!,
        topK: [0, 1, 3, 40, 1000][random(5)]!,
        topP: [1, 0.9, 0.5, 0.01][random(4)]!,
        minP: [0, 0.05, 0.5][random(3)]!,
        repetitionPenalty: [1, 1.3, 0.5][random(3)]!,
        presencePenalty: [0, 1, -2][random(3)]!,
        frequencyPenalty: [0, 0.5, -0.1][random(3)]!,
        logitBias: new Map(random(2) ? ids(3).map((id) => [id, random(200) - 100]) : []),
        seed: BigInt(trial),
      };
      const prompt = ids(random(20));
      const output = ids(random(20));
      const bannedIds = random(3) ? [] : [random(vocabularySize)];
      const history = new SamplingHistory(params, vocabularySize, Uint16Array.from(prompt));
      for (const id of output) history.record(id);
      const uniform = history.uniforms.at(output.length);
      const expected = sampleNaively({ logits, params, prompt, output, bannedIds, uniform });
      expect(new Sampler(vocabularySize).sample(Float32Array.from(logits), 0, history, bannedIds)).toBe(expected);
    }
  });
});
