/** Decoded pixels, interleaved: RGB, RGB with straight alpha, or CMYK (255 = full ink). */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly colour: "rgb" | "rgba" | "cmyk";
  readonly data: Uint8Array;
}

/** Converts one pixel: reads `data` at `from`, writes three bytes to `rgb` at `to`. */
export type PixelConverter = (data: Uint8Array, from: number, rgb: Uint8Array, to: number) => void;

const WHITE = 255;

export const CHANNELS: Readonly<Record<Pixels["colour"], number>> = { rgb: 3, rgba: 4, cmyk: 4 };

export const TO_RGB: Readonly<Record<Pixels["colour"], PixelConverter>> = {
  rgb(data, from, rgb, to) {
    for (let c = 0; c < 3; c++) rgb[to + c] = data[from + c]!;
  },
  /** On white; rounded to the nearest. */
  rgba(data, from, rgb, to) {
    const alpha = data[from + 3]!;
    for (let c = 0; c < 3; c++) {
      rgb[to + c] = Math.floor((data[from + c]! * alpha + WHITE * (255 - alpha) + 127) / 255);
    }
  },
  /** Without any profile: (255 − ink)(255 − black) / 255, the product rounded as Pillow does. */
  cmyk(data, from, rgb, to) {
    const light = 255 - data[from + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = data[from + c]! * light + 128;
      rgb[to + c] = light - (((product >> 8) + product) >> 8);
    }
  },
};
