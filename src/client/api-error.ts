import { MblmApiError } from "./errors.js";
import { excerpt } from "./read-json.js";
import { askedDelayMs } from "./retry.js";

/** The error of an answer's body, whatever form that has. */
export function toApiError(response: Response, text: string): MblmApiError {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's page, say: its beginning tells more than nothing.
  }
  const error = isObject(body) && "error" in body ? body.error : undefined;
  if (error !== undefined) return fromErrorField(error, response);
  return fromErrorField(excerpt(text.trim()) || response.statusText || `status ${response.status}`, response);
}

/** The value of `error` in a body, an event or a line: an object of the API, or just a message. */
export function fromErrorField(error: unknown, response: Response): MblmApiError {
  const fields = isObject(error) ? error : { message: error };
  const delayMs = askedDelayMs(response.headers, Date.now());
  return new MblmApiError(toText(fields.message) ?? "the server gave no reason", {
    status: response.status,
    code: toText(fields.code),
    type: toText(fields.type),
    param: toText(fields.param),
    requestId: requestIdOf(response),
    retryAfterSeconds: delayMs === undefined ? undefined : delayMs / 1000,
  });
}

export function requestIdOf(response: Response): string | undefined {
  return response.headers.get("x-request-id") ?? undefined;
}

/** Other servers have numbers as codes. */
function toText(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
