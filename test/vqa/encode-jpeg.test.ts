import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { type AlignedJpegOptions, alignedJpeg } from "../../src/vqa/jpeg/aligned-jpeg.js";
import { encodeJpeg, type JpegOptions } from "../../src/vqa/jpeg/encode-jpeg.js";

interface Encoded {
  readonly width: number;
  readonly height: number;
  readonly quality: number;
  readonly restartBlocks: number;
  readonly blockBytes: number;
  /** Base64: planar pixels, and Python's file of them. */
  readonly rgb: string;
  readonly file: string;
}

const path = fileURLToPath(new URL("../.images/encoded.json", import.meta.url));
const cases = JSON.parse(readFileSync(path, "utf8")) as Encoded[];

function check(
  cases: readonly Encoded[],
  encode: (rgb: Uint8Array, width: number, height: number, options: JpegOptions & AlignedJpegOptions) => Uint8Array,
): void {
  expect(cases.length).toBeGreaterThan(100);
  for (const { rgb, file, width, height, ...options } of cases) {
    const made = Buffer.from(encode(Buffer.from(rgb, "base64"), width, height, options));
    expect(made.equals(Buffer.from(file, "base64")), `${width}x${height} ${JSON.stringify(options)}`).toBe(true);
  }
}

describe("JPEG files", () => {
  it("are Pillow's, byte for byte: sizes, qualities, restart markers", () => {
    check(
      cases.filter(({ blockBytes }) => blockBytes === 0),
      encodeJpeg,
    );
  });

  it("with blocks at multiples of some bytes are those that models were trained on", () => {
    check(
      cases.filter(({ blockBytes }) => blockBytes > 0),
      alignedJpeg,
    );
  });

  it("with such blocks decode to the same pixels as the usual files", async () => {
    const some = cases.filter(({ blockBytes }) => blockBytes > 0).slice(0, 40);
    for (const { rgb, width, height, quality, blockBytes } of some) {
      const pixels = Buffer.from(rgb, "base64");
      const [usual, aligned] = await Promise.all(
        [
          encodeJpeg(pixels, width, height, { quality, restartBlocks: 0 }),
          alignedJpeg(pixels, width, height, { quality, blockBytes }),
        ].map((file) => sharp(file, { failOn: "warning" }).raw().toBuffer()),
      );
      expect(usual!.equals(aligned!), `${width}x${height} ${quality} ${blockBytes}`).toBe(true);
    }
  });
});
