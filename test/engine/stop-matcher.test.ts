import { describe, expect, it } from "vitest";
import { StopMatcher } from "../../src/engine/stop-matcher.js";
import { makeRandom } from "./requests.js";

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));
const text = (sequence: Uint8Array | undefined): string | undefined => sequence && Buffer.from(sequence).toString();

/** Feeds a text and returns what matched first, how much was fed by then, and what was held after every id. */
function follow(stops: string[], input: string): { matched: string | undefined; fed: number; held: number[] } {
  const matcher = new StopMatcher(stops.map(bytes));
  const held: number[] = [];
  for (const [index, id] of bytes(input).entries()) {
    const matched = matcher.push(id);
    if (matched !== undefined) return { matched: text(matched), fed: index + 1, held };
    held.push(matcher.numHeld);
  }
  return { matched: undefined, fed: input.length, held };
}

describe("StopMatcher", () => {
  it.each([
    { stops: ["END"], input: "the END", matched: "END", fed: 7 },
    { stops: ["aab"], input: "aaab", matched: "aab", fed: 4 },
    { stops: ["abab"], input: "abaabab", matched: "abab", fed: 7 },
    { stops: ["ababc"], input: "abababc", matched: "ababc", fed: 7 },
    { stops: ["aa"], input: "baa", matched: "aa", fed: 3 },
    { stops: ["b", "ab"], input: "xab", matched: "ab", fed: 3 },
    { stops: ["abc", "b"], input: "abc", matched: "b", fed: 2 },
    { stops: ["xyz", "ya"], input: "xya", matched: "ya", fed: 3 },
    { stops: [], input: "anything", matched: undefined, fed: 8 },
    { stops: ["\n\n"], input: "a\nb\n", matched: undefined, fed: 4 },
  ])("finds $matched in $input when looking for $stops", ({ stops, input, matched, fed }) => {
    expect(follow(stops, input)).toMatchObject({ matched, fed });
  });

  it.each([
    { stops: ["END"], input: "xENx", held: [0, 1, 2, 0] },
    { stops: ["aab"], input: "aaac", held: [1, 2, 2, 0] },
    { stops: ["abad"], input: "abab", held: [1, 2, 3, 2] },
    { stops: ["xyz", "yzzz"], input: "xyy", held: [1, 2, 1] },
  ])("holds back the longest beginning of $stops in $input", ({ stops, input, held }) => {
    expect(follow(stops, input).held).toEqual(held);
  });

  it("treats ids above 255 as no byte at all", () => {
    const matcher = new StopMatcher([Uint8Array.of(0, 1)]);
    matcher.push(0);
    expect(matcher.push(257)).toBeUndefined();
    expect(matcher.numHeld).toBe(0);
  });

  it("goes on after a match that did not count", () => {
    const matcher = new StopMatcher([bytes("aba")]);
    const matches = [..."ababa"].map((c, i) => matcher.push(c.charCodeAt(0), i > 2) !== undefined);
    expect(matches).toEqual([false, false, false, false, true]);
  });

  it("agrees with searching all suffixes, for random stops over small alphabets", () => {
    const random = makeRandom(1);
    for (let trial = 0; trial < 2000; trial++) {
      const word = (length: number) => Array.from({ length }, () => 97 + random(2 + (trial % 2)));
      const stops = Array.from({ length: 1 + random(3) }, () => Uint8Array.from(word(1 + random(5))));
      const matcher = new StopMatcher(stops);
      const seen: number[] = [];
      for (const id of word(24)) {
        seen.push(id);
        const endsWith = (bytes: ArrayLike<number>, length: number) =>
          length <= seen.length && Array.from({ length }, (_, i) => seen.at(i - length) === bytes[i]).every(Boolean);
        const complete = stops.filter((stop) => endsWith(stop, stop.length)).map((stop) => stop.length);
        expect(matcher.push(id)?.length ?? 0).toBe(Math.max(0, ...complete));
        if (complete.length > 0) break;
        const prefixes = stops.flatMap((stop) =>
          Array.from({ length: stop.length }, (_, length) => length).filter((length) => endsWith(stop, length)),
        );
        expect(matcher.numHeld).toBe(Math.max(0, ...prefixes));
      }
    }
  });
});
