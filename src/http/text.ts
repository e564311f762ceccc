import { MblmError } from "../errors.js";

/** UTF-8 of a text. @throws MblmError as `requireUnicode` */
export function encodeText(field: string, text: string): Uint8Array {
  requireUnicode(field, text);
  return new TextEncoder().encode(text);
}

/**
 * JSON can spell half a surrogate pair, which has no UTF-8 and would silently become U+FFFD.
 *
 * @throws MblmError `invalid_request`
 */
export function requireUnicode(field: string, text: string): void {
  if (!/\p{Surrogate}/u.test(text)) return;
  throw new MblmError("invalid_request", `${field}: has half of a surrogate pair, which is no Unicode text`, { field });
}

/** Text of ids, invalid bytes as U+FFFD; ids above 255 have none. */
export function decodeIds(ids: ArrayLike<number>): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
    Uint8Array.from(Array.from(ids).filter((id) => id < 256)),
  );
}
