import type { Usage } from "../core/generation-event.js";

/** Usage of a whole request: each prompt counts once, however many choices (`size`) it has. */
export function usageBody(usages: readonly Usage[], size: number) {
  const first = usages.filter((_, i) => i % size === 0);
  const sum = (list: readonly Usage[], key: keyof Usage) => list.reduce((total, usage) => total + usage[key], 0);
  const promptTokens = sum(first, "promptBytes");
  const completionTokens = sum(usages, "generatedBytes");
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: sum(first, "cachedBytes") },
  };
}

/** What ended an output: the stop's text (its bytes where it has none) or id; null for another reason. */
export function stopReason(matched: Uint8Array | number | undefined): string | number | number[] | null {
  if (matched === undefined) return null;
  if (typeof matched === "number") return matched;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(matched);
  } catch {
    return [...matched];
  }
}
