import { MblmProtocolError } from "./errors.js";

/**
 * A JSON object.
 *
 * @throws MblmProtocolError when the text is none
 */
export function readObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MblmProtocolError(`the answer is no JSON: ${excerpt(text)}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new MblmProtocolError(`the answer is no JSON object: ${excerpt(text)}`);
  }
  return value as Record<string, unknown>;
}

/** The beginning of a text, for messages. */
export function excerpt(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
