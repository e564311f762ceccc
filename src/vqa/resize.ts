import { setImmediate } from "node:timers/promises";
import { lanczosWeights, type ResizeWeights, WEIGHT_BITS } from "./lanczos.js";

/** An image that is read row by row, three bytes (RGB) a pixel. */
export interface RgbRows {
  readonly width: number;
  readonly height: number;
  /** Writes row `y` to `row`, 3 · width bytes. */
  read(y: number, row: Uint8Array): void;
}

/** Products after which other work of the thread gets its turn: a few milliseconds. */
const PRODUCTS_PER_TURN = 4_000_000;
const HALF = 1 << (WEIGHT_BITS - 1);

/**
 * Resizes as Pillow's `resize((width, height), LANCZOS)` does, bit for bit: rows first, rounded to bytes, then columns.
 *
 * @returns rows of interleaved RGB, 3 · width · height bytes
 */
export async function resize(source: RgbRows, width: number, height: number): Promise<Uint8Array> {
  const narrowed = await resizeRows(source, width);
  return resizeColumns(narrowed, 3 * width, lanczosWeights(source.height, height), height);
}

/** Every row at its new width. A large image takes a while, in which the thread is given away now and then. */
async function resizeRows(source: RgbRows, width: number): Promise<Uint8Array> {
  const weights = lanczosWeights(source.width, width);
  const row = new Uint8Array(3 * source.width);
  const narrowed = new Uint8Array(3 * width * source.height);
  const productsPerRow = 3 * width * weights.stride;
  let products = 0;
  for (let y = 0; y < source.height; y++) {
    source.read(y, row);
    resizeRow(row, weights, narrowed.subarray(3 * width * y, 3 * width * (y + 1)));
    products += productsPerRow;
    if (products < PRODUCTS_PER_TURN) continue;
    products = 0;
    await setImmediate();
  }
  return narrowed;
}

function resizeRow(row: Uint8Array, { starts, counts, weights, stride }: ResizeWeights, out: Uint8Array): void {
  for (let x = 0; x < starts.length; x++) {
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    let place = 3 * starts[x]!;
    const end = x * stride + counts[x]!;
    for (let i = x * stride; i < end; i++, place += 3) {
      const weight = weights[i]!;
      red += row[place]! * weight;
      green += row[place + 1]! * weight;
      blue += row[place + 2]! * weight;
    }
    out[3 * x] = toByte(red);
    out[3 * x + 1] = toByte(green);
    out[3 * x + 2] = toByte(blue);
  }
}

function resizeColumns(rows: Uint8Array, rowBytes: number, weights: ResizeWeights, height: number): Uint8Array {
  const { starts, counts, stride } = weights;
  const result = new Uint8Array(rowBytes * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < rowBytes; x++) {
      let sum = HALF;
      for (let i = 0; i < counts[y]!; i++) {
        sum += rows[(starts[y]! + i) * rowBytes + x]! * weights.weights[y * stride + i]!;
      }
      result[y * rowBytes + x] = toByte(sum);
    }
  }
  return result;
}

function toByte(sum: number): number {
  return Math.min(255, Math.max(0, sum >> WEIGHT_BITS));
}
