import type { IncomingHttpHeaders } from "node:http";
import { tooLarge } from "../../feeding/body-reader.js";

/** @throws MblmError `body_too_large` for a body that is declared as such, before any of it is read */
export function requireDeclaredFits(headers: IncomingHttpHeaders, maxBytes: number): void {
  if ((declaredLength(headers) ?? 0) > maxBytes) throw tooLarge(maxBytes);
}

/** Bytes of the body, where that is said. */
export function declaredLength(headers: IncomingHttpHeaders): number | undefined {
  const text = headers["content-length"];
  return text === undefined ? undefined : Number(text);
}
