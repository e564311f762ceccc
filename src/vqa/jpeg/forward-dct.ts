/**
 * The integer DCT of Loeffler, Ligtenberg and Moschytz with 12 multiplications, as libjpeg's accurate method scales and
 * rounds it: 13 bits behind the binary point in the constants, 2 between the passes. Results are 8 times the true DCT.
 */
const CONSTANT_BITS = 13;
const PASS_BITS = 2;

const [C0_298, C0_390, C0_541, C0_765, C0_899, C1_175] = [2446, 3196, 4433, 6270, 7373, 9633];
const [C1_501, C1_847, C1_961, C2_053, C2_562, C3_072] = [12299, 15137, 16069, 16819, 20995, 25172];

/** Transforms a block of 8 × 8 values from −128 to 127, in place. */
export function forwardDct(block: Int32Array): void {
  for (let row = 0; row < 8; row++) transform(block, 8 * row, 1, PASS_BITS, CONSTANT_BITS - PASS_BITS);
  for (let column = 0; column < 8; column++) transform(block, column, 8, -PASS_BITS, CONSTANT_BITS + PASS_BITS);
}

/**
 * One row or column.
 *
 * @param gain bits that the sums without a multiplication are shifted left by; right, and rounded, when it is negative
 * @param loss bits that products are shifted right by
 */
function transform(block: Int32Array, start: number, step: number, gain: number, loss: number): void {
  const at = (i: number): number => block[start + i * step]!;
  const put = (i: number, value: number): void => {
    block[start + i * step] = value;
  };
  const scale = (sum: number): number => (gain >= 0 ? sum << gain : rounded(sum, -gain));
  const [s0, s1, s2, s3] = [at(0) + at(7), at(1) + at(6), at(2) + at(5), at(3) + at(4)];
  const [d0, d1, d2, d3] = [at(0) - at(7), at(1) - at(6), at(2) - at(5), at(3) - at(4)];

  const [e0, e1, e2, e3] = [s0 + s3, s1 + s2, s1 - s2, s0 - s3];
  put(0, scale(e0 + e1));
  put(4, scale(e0 - e1));
  const even = (e2 + e3) * C0_541;
  put(2, rounded(even + e3 * C0_765, loss));
  put(6, rounded(even - e2 * C1_847, loss));

  const odd = (d3 + d1 + d2 + d0) * C1_175;
  const [z1, z2] = [-(d3 + d0) * C0_899, -(d2 + d1) * C2_562];
  const [z3, z4] = [odd - (d3 + d1) * C1_961, odd - (d2 + d0) * C0_390];
  put(7, rounded(d3 * C0_298 + z1 + z3, loss));
  put(5, rounded(d2 * C2_053 + z2 + z4, loss));
  put(3, rounded(d1 * C3_072 + z2 + z3, loss));
  put(1, rounded(d0 * C1_501 + z1 + z4, loss));
}

/** value / 2^bits, to the nearest, halves up. */
function rounded(value: number, bits: number): number {
  return (value + (1 << (bits - 1))) >> bits;
}
