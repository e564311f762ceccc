/** Bits behind the binary point of a weight: 255 × the largest sum of weights still fits into 32 bits. */
export const WEIGHT_BITS = 22;
const LOBES = 3;

/** How each output of a one-dimensional resize is a weighted sum of a run of inputs, in fixed point. */
export interface ResizeWeights {
  /** First input of each output. */
  readonly starts: Int32Array;
  /** Inputs of each output. */
  readonly counts: Int32Array;
  /** Output o's weights begin at o · stride. */
  readonly weights: Int32Array;
  readonly stride: number;
}

/**
 * Pillow's weights for its Lanczos filter: the kernel is stretched by the scale when the image shrinks, cut off at the
 * borders, normalised in float64 and rounded, half away from zero.
 */
export function lanczosWeights(inputSize: number, outputSize: number): ResizeWeights {
  const scale = inputSize / outputSize;
  const stretch = Math.max(scale, 1);
  const support = LOBES * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(outputSize);
  const counts = new Int32Array(outputSize);
  const weights = new Int32Array(outputSize * stride);
  for (let output = 0; output < outputSize; output++) {
    const centre = (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(inputSize, Math.trunc(centre + support + 0.5)) - start;
    const run = Float64Array.from({ length: count }, (_, i) => lanczos((i + start - centre + 0.5) * (1 / stretch)));
    const total = run.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of run.entries()) weights[output * stride + i] = toFixedPoint(weight / total);
    starts[output] = start;
    counts[output] = count;
  }
  return { starts, counts, weights, stride };
}

function lanczos(x: number): number {
  return -LOBES <= x && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function toFixedPoint(weight: number): number {
  return Math.trunc(weight * 2 ** WEIGHT_BITS + (weight < 0 ? -0.5 : 0.5));
}
