import { describe, expect, it } from "vitest";
import { philox4x32 } from "../../src/sampling/philox.js";
import { UniformSource } from "../../src/sampling/uniform-source.js";

describe("philox4x32", () => {
  // Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
  it.each([
    {
      counter: [0, 0, 0, 0],
      key: [0, 0],
      expected: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    },
    {
      counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      key: [0xffffffff, 0xffffffff],
      expected: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    },
    {
      counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      key: [0xa4093822, 0x299f31d0],
      expected: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    },
  ])("gives the published answer for $counter", ({ counter, key, expected }) => {
    const block = Uint32Array.from(counter);
    philox4x32(block, key[0]!, key[1]!);
    expect([...block]).toEqual(expected);
  });

  it("agrees with the definition in big integers", () => {
    for (let i = 0; i < 200; i++) {
      const words = new Uint32Array(4).fill(i * 0x9e3779b1);
      words[i % 4]! ^= 0x85ebca6b * i;
      const expected = philoxOfBigInts([...words].map(BigInt), [BigInt(i * 7919), 0xffffffffn - BigInt(i)]);
      philox4x32(words, i * 7919, 0xffffffff - i);
      expect([...words].map(BigInt)).toEqual(expected);
    }
  });
});

function philoxOfBigInts(counter: bigint[], key: bigint[]): bigint[] {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3];
}

describe("UniformSource", () => {
  it("depends on seed and index alone", () => {
    const inOrder = Array.from(
      { length: 50 },
      (
        (source) => (_, i) =>
          source.at(i)
      )(new UniformSource(42n)),
    );
    const source = new UniformSource(42n);
    for (const i of [49, 3, 17, 0]) expect(source.at(i)).toBe(inOrder[i]);
    expect(new Set(inOrder).size).toBe(50);
  });

  it("uses all 64 bits of the seed and indices beyond 32 bits", () => {
    const seeds = [0n, 1n, 1n << 31n, 1n << 32n, 1n << 63n, (1n << 64n) - 1n];
    const indices = [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 40];
    const values = seeds.flatMap((seed) => indices.map((i) => new UniformSource(seed).at(i)));
    expect(new Set(values).size).toBe(seeds.length * indices.length);
  });

  it("is uniform on [0, 1)", () => {
    const source = new UniformSource(7n);
    const bins = new Array(16).fill(0);
    const count = 16_000;
    for (let i = 0; i < count; i++) bins[Math.floor(source.at(i) * 16)]++;
    const expected = count / 16;
    const chiSquare = bins.reduce((total: number, n: number) => total + (n - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(37.7); // 15 degrees of freedom, p = 0.001; the seed is fixed
  });
});
