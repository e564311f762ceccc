import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import type { ImageFormat } from "../../src/core/vqa-format.js";
import { ImageDecoder } from "../../src/vqa/image-decoder.js";
import { preprocess } from "../../src/vqa/preprocess.js";

const folder = fileURLToPath(new URL("../.images/", import.meta.url));
const names = JSON.parse(readFileSync(`${folder}expected.json`, "utf8")) as string[];
const expected = readFileSync(`${folder}expected.bin`);

const FORMAT: ImageFormat = { width: 62, height: 41, crop: 0.1, encoding: { mode: "pixels", levels: undefined } };
const SIZE = 3 * 62 * 41;

const NEVER = new AbortController().signal;

let decoder: ImageDecoder;
beforeAll(async () => {
  decoder = await ImageDecoder.open({ maxPixels: 1e6, maxConcurrent: 1, maxWaiting: 0 });
});

const seen = async (name: string, format = FORMAT): Promise<Buffer> => {
  return Buffer.from(
    await decoder.decode(readFileSync(folder + name), NEVER, ({ pixels }) => preprocess(pixels, format)),
  );
};

describe("the bytes of an image", () => {
  it("there are hundreds of images", () => {
    expect(names.length).toBeGreaterThan(500);
    expect(expected.length).toBe(names.length * SIZE);
  });

  it.each(["jpg", "png", "webp"])("are Pillow's: %s", async (extension) => {
    for (const [i, name] of names.entries()) {
      if (!name.endsWith(extension)) continue;
      const want = expected.subarray(i * SIZE, (i + 1) * SIZE);
      expect((await seen(name)).equals(want), name).toBe(true);
    }
  });

  it("of fewer levels are the mid-points of bins", async () => {
    const whole = await seen("gamma.png");
    for (const levels of [2, 3, 8, 32, 256]) {
      const few = await seen("gamma.png", { ...FORMAT, encoding: { mode: "pixels", levels } });
      const midpoint = (value: number) => Math.floor(((2 * Math.floor((value * levels) / 256) + 1) * 128) / levels);
      expect([...few]).toEqual([...whole].map(midpoint));
    }
  });
});
