import type { ModelInfo } from "../core/model-info.js";
import { checkId } from "./generation-options.js";
import { encodeText } from "./text.js";

/** Text, ids, or lists of either, as ids. */
export type PromptField = string | readonly string[] | readonly number[] | readonly (readonly number[])[];

export function toPrompts(prompt: PromptField, vocabularySize: number): Uint16Array[] {
  if (typeof prompt === "string") return [encodePrompt(prompt)];
  const first = prompt[0];
  if (first === undefined || typeof first === "number") return [toIds(prompt as number[], vocabularySize)];
  return (prompt as (string | number[])[]).map((item) =>
    typeof item === "string" ? encodePrompt(item) : toIds(item, vocabularySize),
  );
}

/**
 * The end of a prompt that is kept.
 *
 * @param limit bytes; -1 for what the model holds beside `maxNewBytes`; null for all
 */
export function truncate(prompt: Uint16Array, limit: number | null, maxNewBytes: number, info: ModelInfo): Uint16Array {
  if (limit === null) return prompt;
  const kept = limit === -1 ? Math.max(0, (info.maxLength ?? Infinity) - maxNewBytes) : limit;
  return prompt.length <= kept ? prompt : prompt.slice(prompt.length - kept);
}

function encodePrompt(text: string): Uint16Array {
  return Uint16Array.from(encodeText("prompt", text));
}

function toIds(ids: readonly number[], vocabularySize: number): Uint16Array {
  return Uint16Array.from(ids, (id) => checkId("prompt", id, vocabularySize));
}
