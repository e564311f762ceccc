/** One component of an image. */
export interface Plane {
  readonly width: number;
  readonly height: number;
  readonly samples: Uint8Array;
}

const FRACTION_BITS = 16;
const HALF = 1 << (FRACTION_BITS - 1);
const CENTRE = 128 << FRACTION_BITS;

/** Coefficients as libjpeg rounds them. */
const fixed = (value: number): number => Math.floor(value * 2 ** FRACTION_BITS + 0.5);
const [R_Y, G_Y, B_Y] = [fixed(0.299), fixed(0.587), fixed(0.114)];
const [R_CB, G_CB, R_CR_B_CB, G_CR, B_CR] = [
  fixed(0.168735892),
  fixed(0.331264108),
  fixed(0.5),
  fixed(0.418687589),
  fixed(0.081312411),
];

/**
 * Y, Cb and Cr of planar RGB, the latter two at half the resolution, in whole blocks of 8 × 8: the last column and row are
 * repeated.
 *
 * @param rgb 3 · height · width bytes
 */
export function toPlanes(rgb: Uint8Array, width: number, height: number): readonly [Plane, Plane, Plane] {
  const size = width * height;
  const [y, cb, cr] = [new Uint8Array(size), new Uint8Array(size), new Uint8Array(size)];
  for (let i = 0; i < size; i++) {
    const [r, g, b] = [rgb[i]!, rgb[size + i]!, rgb[2 * size + i]!];
    y[i] = (R_Y * r + G_Y * g + B_Y * b + HALF) >> FRACTION_BITS;
    cb[i] = (R_CR_B_CB * b - R_CB * r - G_CB * g + CENTRE + HALF - 1) >> FRACTION_BITS;
    cr[i] = (R_CR_B_CB * r - G_CR * g - B_CR * b + CENTRE + HALF - 1) >> FRACTION_BITS;
  }
  return [padded({ width, height, samples: y }, 8, 8), toChroma(cb, width, height), toChroma(cr, width, height)];
}

/** Columns are repeated before the resolution is halved, rows after that, but for one that has no partner. */
function toChroma(samples: Uint8Array, width: number, height: number): Plane {
  return padded(halved(padded({ width, height, samples }, 16, 2)), 8, 8);
}

/** Extended to multiples of so many columns and rows. */
function padded({ width, height, samples }: Plane, columnMultiple: number, rowMultiple: number): Plane {
  const columns = Math.ceil(width / columnMultiple) * columnMultiple;
  const rows = Math.ceil(height / rowMultiple) * rowMultiple;
  const result = new Uint8Array(columns * rows);
  for (let y = 0; y < rows; y++) {
    const from = Math.min(y, height - 1) * width;
    for (let x = 0; x < columns; x++) result[y * columns + x] = samples[from + Math.min(x, width - 1)]!;
  }
  return { width: columns, height: rows, samples: result };
}

/** Means of two by two samples, rounded down and up in turn along a row. */
function halved({ width, height, samples }: Plane): Plane {
  const [columns, rows] = [width / 2, height / 2];
  const result = new Uint8Array(columns * rows);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const at = 2 * y * width + 2 * x;
      const sum = samples[at]! + samples[at + 1]! + samples[at + width]! + samples[at + width + 1]!;
      result[y * columns + x] = (sum + 1 + (x & 1)) >> 2;
    }
  }
  return { width: columns, height: rows, samples: result };
}
