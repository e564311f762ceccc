import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { encodeJpeg } from "../../src/vqa/jpeg/encode-jpeg.js";

interface Encoded {
  readonly width: number;
  readonly height: number;
  readonly quality: number;
  readonly restartBlocks: number;
  /** Base64: planar pixels, and Pillow's file of them. */
  readonly rgb: string;
  readonly file: string;
}

const path = fileURLToPath(new URL("../.images/encoded.json", import.meta.url));
const cases = JSON.parse(readFileSync(path, "utf8")) as Encoded[];

describe("JPEG files", () => {
  it("are Pillow's, byte for byte: sizes, qualities, restart markers", () => {
    expect(cases.length).toBeGreaterThan(100);
    for (const { rgb, file, width, height, ...options } of cases) {
      const made = Buffer.from(encodeJpeg(Buffer.from(rgb, "base64"), width, height, options));
      expect(made.equals(Buffer.from(file, "base64")), `${width}x${height} ${JSON.stringify(options)}`).toBe(true);
    }
  });
});
