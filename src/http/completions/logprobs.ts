import type { ByteLogprobs, PromptScores } from "../../core/generation-event.js";

/** Scores of one id on its way to the wire; the first id of a prompt has none. */
export interface ScoredId {
  readonly id: number;
  readonly logprobs: ByteLogprobs | null;
}

/** OpenAI's legacy log-prob object. */
export interface LogprobsBody {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** How an id is spelled: ASCII as itself, other bytes as `bytes:\xNN` (never U+FFFD), special ids as `id:N`. */
export function spellId(id: number): string {
  if (id < 0x80) return String.fromCharCode(id);
  return id < 0x100 ? `bytes:\\x${id.toString(16).padStart(2, "0")}` : `id:${id}`;
}

/** The prompt's ids with their scores; as everywhere in this API, the first one's is null. */
export function scoredPrompt(prompt: Uint16Array, scores: PromptScores): ScoredId[] {
  return Array.from(prompt, (id, i) => ({
    id,
    logprobs: i === 0 ? null : { logprob: scores.logprobs[i]!, top: scores.top?.[i] ?? [] },
  }));
}

/**
 * @param numTop alternatives listed at each place; the id itself is always listed, too
 * @param firstOffset bytes of text before the first id
 */
export function toLogprobsBody(scored: readonly ScoredId[], numTop: number, firstOffset: number): LogprobsBody {
  return {
    tokens: scored.map(({ id }) => spellId(id)),
    token_logprobs: scored.map(({ logprobs }) => logprobs?.logprob ?? null),
    top_logprobs: scored.map(({ id, logprobs }) => logprobs && topOf(id, logprobs, numTop)),
    // Offsets count bytes: characters are not known while one is incomplete.
    text_offset: scored.map((_, i) => firstOffset + i),
  };
}

function topOf(id: number, { logprob, top }: ByteLogprobs, numTop: number): Record<string, number> {
  const listed: [string, number][] = top.slice(0, numTop).map((entry) => [spellId(entry.id), entry.logprob]);
  return Object.fromEntries([...listed, [spellId(id), logprob]]);
}

/** vLLM's prompt log-probs: per place, id → log-prob; the rank of an id is known only among those listed. */
export function toPromptLogprobs(scored: readonly ScoredId[], numTop: number) {
  return scored.map(({ id, logprobs }) => {
    if (logprobs === null) return null;
    const listed = logprobs.top.slice(0, numTop).map((entry, i) => ({ ...entry, rank: i + 1 }));
    const own = listed.some((entry) => entry.id === id) ? [] : [{ id, logprob: logprobs.logprob, rank: null }];
    return Object.fromEntries(
      [...own, ...listed].map((entry) => [
        String(entry.id),
        { logprob: entry.logprob, rank: entry.rank, decoded_token: spellId(entry.id) },
      ]),
    );
  });
}
