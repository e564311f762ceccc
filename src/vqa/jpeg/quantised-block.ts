import { forwardDct } from "./forward-dct.js";
import type { Plane } from "./planes.js";
import { BLOCK, ZIGZAG } from "./tables.js";

/**
 * The coefficients of block (x, y) in zigzag order, as multiples of their steps.
 *
 * @param outside the mean of a block that lies outside the plane, which is flat
 */
export function quantisedBlock(
  plane: Plane,
  steps: readonly number[],
  x: number,
  y: number,
  outside: number,
): Int32Array {
  const result = new Int32Array(BLOCK);
  if (8 * x >= plane.width || 8 * y >= plane.height) {
    result[0] = outside;
    return result;
  }
  const block = new Int32Array(BLOCK);
  for (let i = 0; i < BLOCK; i++) {
    block[i] = plane.samples[(8 * y + (i >> 3)) * plane.width + 8 * x + (i & 7)]! - 128;
  }
  forwardDct(block);
  for (let i = 0; i < BLOCK; i++) result[i] = quantise(block[ZIGZAG[i]!]!, 8 * steps[i]!);
  return result;
}

/** To the nearest multiple, halves away from zero. */
function quantise(value: number, step: number): number {
  return Math.sign(value) * Math.floor((Math.abs(value) + (step >> 1)) / step);
}
