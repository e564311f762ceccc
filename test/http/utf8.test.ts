import { describe, expect, it } from "vitest";
import { complete, stream } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");

/** Characters of two, three and four bytes, and what surrounds them. */
const CHARACTERS = ["é", "€", "😀"];
const bytesOf = (text: string): number[] => [...Buffer.from(text)];

/** A request whose output is the given bytes: at every place one id is allowed. */
const forced = (text: string) => ({ structured_outputs: { choice: [text] }, max_tokens: 100 });

describe.each(CHARACTERS)("%s", (character) => {
  const size = bytesOf(character).length;

  it("is whole in every chunk, wherever chunks are cut", async () => {
    const text = `ab${character}c${character}${character}`;
    for (let interval = 1; interval <= size + 1; interval++) {
      const body = { prompt: "a", ...forced(text), stream_interval: interval, return_token_ids: true };
      const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
      expect(pieces.map((piece) => piece.text).join("")).toBe(text);
      expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(bytesOf(text));
      for (const piece of pieces) expect(piece.text).not.toContain("\ufffd");
    }
  });

  it("is whole when the prompt ends inside it", async () => {
    for (let split = 1; split < size; split++) {
      const body = {
        prompt: bytesOf(character).slice(0, split),
        allowed_token_ids: bytesOf(character).slice(split, split + 1),
        max_tokens: 1,
        echo: true,
      };
      const { text } = (await complete(app(), body)).choices[0]!;
      expect(text).toBe(split === size - 1 ? character : "\ufffd");
    }
  });

  it("ends at the limit as replacement characters when it is incomplete, and as itself with utf8", async () => {
    for (let limit = 1; limit < size; limit++) {
      const body = { prompt: "a", max_tokens: limit, allowed_token_ids: bytesOf(character), temperature: 0 };
      expect((await complete(app(), { ...body, logit_bias: bias(character) })).choices[0]!.text).toContain("\ufffd");
    }
    const body = { prompt: "a", max_tokens: 4 * size + 1, allowed_token_ids: bytesOf(character), utf8: true, seed: 1 };
    const { text, finish_reason } = (await complete(app(), body)).choices[0]!;
    expect(text).not.toContain("\ufffd");
    expect(finish_reason).toBe("length");
  });

  it("is not torn by a stop string across it, in one piece or in chunks", async () => {
    const text = `x${character}y${character}z`;
    const stops: [stop: string, expected: string][] = [
      [`${character}z`, `x${character}y`],
      [`y${character}z`, `x${character}`],
      [character, "x"],
      [`${character}q`, text],
      ["y", `x${character}`],
      [`x${character}y${character}z!`, text],
    ];
    for (const [stop, expected] of stops) {
      const body = { prompt: "a", ...forced(text), stop };
      expect((await complete(app(), body)).choices[0]!.text).toBe(expected);
      const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
      expect(pieces.map((piece) => piece.text).join("")).toBe(expected);
      for (const piece of pieces) expect(piece.text).not.toContain("\ufffd");
    }
  });

  it("is cut by a stop of bytes inside it, at every place", async () => {
    for (let place = 0; place < size; place++) {
      const stop = [bytesOf(character).slice(place, place + 1)];
      const body = { prompt: "a", ...forced(`x${character}`), stop, return_token_ids: true };
      const choice = (await complete(app(), body)).choices[0]!;
      const kept = [120, ...bytesOf(character).slice(0, bytesOf(character).indexOf(stop[0]![0]!))];
      expect(choice.token_ids).toEqual(kept);
      expect(choice.text).toBe(new TextDecoder().decode(Uint8Array.from(kept)));
      const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
      expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(kept);
      expect(pieces.map(({ text }) => text).join("")).toBe(choice.text);
    }
  });
});

/** Makes the character's first byte the certain choice, again and again. */
function bias(character: string): Record<string, number> {
  return { [bytesOf(character)[0]!]: 100 };
}

describe("stop strings that overlap themselves", () => {
  const cases: [text: string, stop: string | string[], expected: string][] = [
    ["aaab", "aab", "a"],
    ["ababac", "abac", "ab"],
    ["aabaabaaab", "aabaaab", "aab"],
    ["abcabcabd", "abcabd", "abc"],
    ["mississippi", "issip", "miss"],
    ["aaaa", "aa", ""],
    ["xabcabx", ["abcabd", "bx"], "xabca"],
    ["abcd", ["bcd", "abcd"], ""],
    ["abcd", ["cd", "bc"], "a"],
    ["abab", "ababab", "abab"],
  ];
  it.each(cases)("%s stopped at %s gives %s, whole and in chunks", async (text, stop, expected) => {
    const body = { prompt: "a", ...forced(text), stop };
    expect((await complete(app(), body)).choices[0]!.text).toBe(expected);
    const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
    expect(pieces.map((piece) => piece.text).join("")).toBe(expected);
    const included = await complete(app(), { ...body, include_stop_str_in_output: true });
    const { stop_reason } = included.choices[0]!;
    expect(included.choices[0]!.text).toBe(expected + (stop_reason ?? ""));
  });
});

describe("utf8", () => {
  it("makes every output valid UTF-8, at every length", async () => {
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        complete(app(), { prompt: "é", max_tokens: i, temperature: 2, seed: i, utf8: true, return_token_ids: true }),
      ),
    );
    let numWide = 0;
    for (const { choices } of answers) {
      const bytes = Uint8Array.from(choices[0]!.token_ids!);
      expect(() => new TextDecoder("utf-8", { fatal: true }).decode(bytes)).not.toThrow();
      numWide += bytes.filter((byte) => byte >= 0x80).length;
      expect(choices[0]!.finish_reason).toBe("length");
    }
    expect(numWide).toBeGreaterThan(100);
  });
});
