import { MblmError } from "../errors.js";

/** UTF-8 of a text; JSON can spell half a surrogate pair, which has none and would silently become U+FFFD. */
export function encodeText(field: string, text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) {
    throw new MblmError("invalid_request", `${field}: has half of a surrogate pair, which is no Unicode text`, {
      field,
    });
  }
  return new TextEncoder().encode(text);
}

/** Text of ids, invalid bytes as U+FFFD; ids above 255 have none. */
export function decodeIds(ids: ArrayLike<number>): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
    Uint8Array.from(Array.from(ids).filter((id) => id < 256)),
  );
}
