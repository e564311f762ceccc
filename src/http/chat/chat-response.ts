import type { ByteLogprobs } from "../../core/generation-event.js";
import { type ChoicePiece, wholeChoices } from "../completions/completion-pieces.js";
import type { CompletionBody } from "../completions/completions-schema.js";
import { spellId } from "../completions/logprobs.js";
import { stopReason, usageBody } from "../wire.js";

/** What chunks and body share. */
export interface ChatHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** The fields of a request that say how its choices are shown. */
export type ChoiceForm = Pick<CompletionBody, "n" | "return_token_ids">;

/** Reads all choices to their ends: the body of a response that is not streamed. */
export async function collectChat(head: ChatHead, body: ChoiceForm, pieces: readonly AsyncGenerator<ChoicePiece>[]) {
  const choices = await wholeChoices(pieces);
  return {
    ...head,
    object: "chat.completion" as const,
    choices: choices.map((piece) => ({
      ...choiceFields(piece, body),
      message: { role: "assistant" as const, content: piece.text, refusal: null },
    })),
    usage: usageBody(
      choices.map((piece) => piece.usage!),
      body.n,
    ),
  };
}

/** One choice in a chunk; the first of each says whose turn it is. */
export function chunkChoice(piece: ChoicePiece, body: ChoiceForm) {
  const delta = {
    ...(piece.prompt ? { role: "assistant" as const } : {}),
    ...(piece.text === "" && piece.finishReason !== null ? {} : { content: piece.text }),
  };
  return { ...choiceFields(piece, body), delta };
}

function choiceFields(piece: ChoicePiece, body: ChoiceForm) {
  return {
    index: piece.index,
    logprobs: piece.logprobs ? { content: toContent(piece.ids, piece.logprobs), refusal: null } : null,
    finish_reason: piece.finishReason,
    stop_reason: stopReason(piece.matchedStop),
    ...(body.return_token_ids ? { token_ids: [...piece.ids] } : {}),
    ...(body.return_token_ids && piece.prompt ? { prompt_token_ids: [...piece.prompt.ids] } : {}),
  };
}

function toContent(ids: Uint16Array, logprobs: readonly ByteLogprobs[]) {
  return Array.from(ids, (id, i) => ({
    ...token(id, logprobs[i]!.logprob),
    top_logprobs: logprobs[i]!.top.map((entry) => token(entry.id, entry.logprob)),
  }));
}

/** Special ids have no bytes. */
function token(id: number, logprob: number) {
  return { token: spellId(id), logprob, bytes: id < 256 ? [id] : null };
}
