import { MblmError } from "../../errors.js";
import { invalid } from "../generation-options.js";

const DATA_URL = /^data:([^,]*),/i;
const MEDIA_TYPES: ReadonlySet<string> = new Set(["image/jpeg", "image/jpg", "image/png", "image/webp"]);
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/**
 * The file that a text has in base64, as it is or behind `data:image/…;base64,`.
 *
 * @param field its name in errors
 * @throws MblmError `invalid_request`; `body_too_large` above `maxBytes`
 */
export function decodeImageText(text: string, field: string, maxBytes: number): Uint8Array {
  const base64 = /^data:/i.test(text) ? dataOf(text, field) : text;
  if (base64.length === 0) throw invalid(field, "must not be empty");
  requireFileSize(Math.floor((base64.length * 3) / 4) - 2, field, maxBytes);
  if (!BASE64.test(base64) || base64.replace(/=+$/, "").length % 4 === 1) {
    throw invalid(field, "is not base64 (A–Z, a–z, 0–9, + and /, without line breaks), nor a data: URL");
  }
  const file = Buffer.from(base64, "base64");
  requireFileSize(file.length, field, maxBytes);
  return file;
}

/** @throws MblmError `body_too_large` */
export function requireFileSize(bytes: number, field: string, maxBytes: number): void {
  if (bytes <= maxBytes) return;
  throw new MblmError("body_too_large", `${field}: the file is larger than ${maxBytes} bytes`, { field });
}

function dataOf(url: string, field: string): string {
  const header = DATA_URL.exec(url.slice(0, 256));
  const [mediaType = "", ...parameters] = (header?.[1] ?? "").toLowerCase().split(";");
  if (header === null || !MEDIA_TYPES.has(mediaType) || parameters.at(-1) !== "base64") {
    throw invalid(field, "a data: URL must begin with data:image/jpeg;base64, or the same with png or webp");
  }
  return url.slice(header[0].length);
}
