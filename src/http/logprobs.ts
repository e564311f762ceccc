import type { ByteLogprobs } from "../core/generation-event.js";

/** OpenAI's legacy log-prob object. */
export interface LogprobsBody {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[];
  readonly text_offset: number[];
}

/** How an id is spelled: ASCII as itself, other bytes as `bytes:\xNN` (never U+FFFD), special ids as `id:N`. */
export function spellId(id: number): string {
  if (id < 0x80) return String.fromCharCode(id);
  return id < 0x100 ? `bytes:\\x${id.toString(16).padStart(2, "0")}` : `id:${id}`;
}

export function toLogprobsBody(ids: Uint16Array, logprobs: readonly ByteLogprobs[], firstOffset: number): LogprobsBody {
  return {
    tokens: Array.from(ids, spellId),
    token_logprobs: logprobs.map(({ logprob }) => logprob),
    top_logprobs: logprobs.map(({ top }) => Object.fromEntries(top.map(({ id, logprob }) => [spellId(id), logprob]))),
    // Offsets count bytes: characters are not known while one is incomplete.
    text_offset: Array.from(ids, (_, i) => firstOffset + i),
  };
}
