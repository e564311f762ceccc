export type ImageFileFormat = "jpeg" | "png" | "webp";

const PNG_MAGIC = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const PNG_BIT_DEPTH_AT = 24;
const PNG_COLOUR_TYPE_AT = 25;

/** What the first bytes say, whatever name or type a file was sent with; undefined for anything else. */
export function sniffFormat(file: Uint8Array): ImageFileFormat | undefined {
  if (hasAt(file, 0, [0xff, 0xd8, 0xff])) return "jpeg";
  if (hasAt(file, 0, PNG_MAGIC)) return "png";
  if (hasAt(file, 0, ascii("RIFF")) && hasAt(file, 8, ascii("WEBP"))) return "webp";
  return undefined;
}

/** Whether a PNG has 16-bit grey or colour and no alpha channel: if it is transparent all the same, a colour is. */
export function isDeepPng(file: Uint8Array): boolean {
  return file[PNG_BIT_DEPTH_AT] === 16 && (file[PNG_COLOUR_TYPE_AT]! & 4) === 0;
}

function hasAt(file: Uint8Array, offset: number, bytes: readonly number[]): boolean {
  return bytes.every((byte, i) => file[offset + i] === byte);
}

function ascii(text: string): number[] {
  return [...text].map((character) => character.charCodeAt(0));
}
