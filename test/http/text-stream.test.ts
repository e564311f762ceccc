import { describe, expect, it } from "vitest";
import { TextStream } from "../../src/http/text-stream.js";

const decodeWhole = (bytes: Uint8Array): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

function decodeInPieces(bytes: Uint8Array, cuts: readonly number[]): string {
  const stream = new TextStream();
  const borders = [0, ...cuts, bytes.length];
  const pieces = borders.slice(1).map((end, i) => stream.push(Uint16Array.from(bytes.subarray(borders[i], end))));
  return pieces.join("") + stream.end();
}

const TEXTS = ["plain", "é", "日本", "😀!", "\ufeffstart", "mixed é日😀 end"];
const INVALID = [
  [0xff],
  [0xc3],
  [0xe6, 0x97],
  [0xf0, 0x9f, 0x98],
  [0x80, 0x80],
  [0xc3, 0x28],
  [0xed, 0xa0, 0x80],
  [0xf5, 0x80, 0x80, 0x80],
];

describe("TextStream", () => {
  it.each([
    ...TEXTS.map((t) => new TextEncoder().encode(t)),
    ...INVALID.map((b) => Uint8Array.from([65, ...b, 66, ...b])),
  ])("equals decoding at once, split at every position: %j", (bytes) => {
    for (let a = 0; a <= bytes.length; a++) {
      for (let b = a; b <= bytes.length; b++) expect(decodeInPieces(bytes, [a, b])).toBe(decodeWhole(bytes));
    }
  });

  it("holds back only an incomplete character", () => {
    const stream = new TextStream();
    expect(stream.push(Uint16Array.of(65, 0xf0, 0x9f))).toBe("A");
    expect(stream.push(Uint16Array.of(0x98))).toBe("");
    expect(stream.push(Uint16Array.of(0x80, 66))).toBe("😀B");
    expect(stream.push(Uint16Array.of(0xff, 67))).toBe("\ufffdC");
  });

  it("special ids have no text", () => {
    expect(new TextStream().push(Uint16Array.of(65, 256, 66))).toBe("AB");
  });
});
