import type { ImageFormat, JpegEncoding } from "../core/vqa-format.js";
import { CHANNELS, type Pixels, TO_RGB } from "./colour.js";
import { alignedJpeg } from "./jpeg/aligned-jpeg.js";
import { encodeJpeg } from "./jpeg/encode-jpeg.js";
import { type RgbRows, resize } from "./resize.js";

/**
 * The bytes of an upright image that the model reads: cropped, resized, as planes of red, green and blue, of fewer levels if
 * the model was trained on such, or as the file of a JPEG. What `scripts/multiscale/vqa/preprocess.py` does, byte for byte.
 */
export async function preprocess(pixels: Pixels, format: ImageFormat): Promise<Uint8Array> {
  const { width, height, crop, encoding } = format;
  const planes = toPlanes(await resize(cropped(pixels, crop), width, height));
  if (encoding.mode === "jpeg") return toJpeg(planes, width, height, encoding);
  if (encoding.levels !== undefined) quantise(planes, encoding.levels);
  return planes;
}

function toJpeg(planes: Uint8Array, width: number, height: number, encoding: JpegEncoding): Uint8Array {
  return encoding.blockBytes > 0
    ? alignedJpeg(planes, width, height, encoding)
    : encodeJpeg(planes, width, height, encoding);
}

/** Without ⌊extent · crop⌋ pixels on each side, in RGB. */
function cropped({ width, height, colour, data }: Pixels, crop: number): RgbRows {
  const [left, top] = [Math.floor(width * crop), Math.floor(height * crop)];
  const [channels, convert] = [CHANNELS[colour], TO_RGB[colour]];
  const innerWidth = width - 2 * left;
  return {
    width: innerWidth,
    height: height - 2 * top,
    read(y, row) {
      const from = ((top + y) * width + left) * channels;
      for (let x = 0; x < innerWidth; x++) convert(data, from + x * channels, row, 3 * x);
    },
  };
}

function toPlanes(interleaved: Uint8Array): Uint8Array {
  const size = interleaved.length / 3;
  return Uint8Array.from(interleaved, (_, i) => interleaved[(i % size) * 3 + Math.floor(i / size)]!);
}

/** Every value becomes the mid-point of its bin, in place. */
function quantise(values: Uint8Array, levels: number): void {
  for (const [i, value] of values.entries()) {
    const bin = Math.floor((value * levels) / 256);
    values[i] = Math.floor(((2 * bin + 1) * 128) / levels);
  }
}
