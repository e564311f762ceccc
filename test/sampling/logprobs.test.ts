import { describe, expect, it } from "vitest";
import { computeLogprobs } from "../../src/sampling/logprobs.js";
import { makeRandom } from "../engine/requests.js";

describe("computeLogprobs", () => {
  it("is the log-softmax of the row", () => {
    const rows = Float32Array.of(9, 9, 9, 1, 2, 3);
    const { logprob, top } = computeLogprobs(rows, 3, 3, 0, 2);
    const normaliser = Math.log(Math.exp(1) + Math.exp(2) + Math.exp(3));
    expect(logprob).toBeCloseTo(1 - normaliser, 12);
    expect(top.map(({ id }) => id)).toEqual([2, 1]);
    expect(top[0]!.logprob).toBeCloseTo(3 - normaliser, 12);
  });

  it("stays finite for logits far from 0", () => {
    expect(computeLogprobs(Float32Array.of(1e4, 1e4), 0, 2, 1, 0).logprob).toBeCloseTo(-Math.LN2, 9);
    expect(computeLogprobs(Float32Array.of(-1e4, -1e4), 0, 2, 1, 0).logprob).toBeCloseTo(-Math.LN2, 9);
  });

  it("gives a chosen alternative the very same number as in the list", () => {
    const logits = Float32Array.of(0.1, 0.7, 0.3);
    const { logprob, top } = computeLogprobs(logits, 0, 3, 1, 1);
    expect(top).toEqual([{ id: 1, logprob }]);
  });

  it("lists the most likely ids in order, equal ones by id, and never more than there are", () => {
    const random = makeRandom(3);
    for (let trial = 0; trial < 200; trial++) {
      const logits = Float32Array.from({ length: 12 }, () => random(5));
      const count = random(16);
      const expected = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count);
      expect(computeLogprobs(logits, 0, 12, 0, count).top.map(({ id }) => id)).toEqual(expected);
    }
  });
});
