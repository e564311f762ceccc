import type { ByteLogprobs } from "../../core/generation-event.js";
import type { AdmittedSequence } from "../admission.js";
import { stopReason, usageBody } from "../wire.js";
import { type ChoicePiece, SharedScores, toPieces, wholeChoices } from "./completion-pieces.js";
import { choicesPerPrompt } from "./completion-request.js";
import type { CompletionBody } from "./completions-schema.js";
import { type ScoredId, toLogprobsBody, toPromptLogprobs } from "./logprobs.js";

/** What a completion's chunks and body share. */
export interface CompletionHead {
  readonly id: string;
  readonly object: "text_completion";
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** The pieces of every choice; those of one prompt share its scores. */
export function choicePieces(
  body: CompletionBody,
  prompts: readonly (Uint16Array | undefined)[],
  sequences: readonly AdmittedSequence[],
): AsyncGenerator<ChoicePiece>[] {
  const size = choicesPerPrompt(body);
  const scores = Array.from({ length: prompts.length / size }, () => new SharedScores());
  return sequences.map((events, index) =>
    toPieces(index, events, prompts[index], scores[Math.floor(index / size)]!, index % size === 0, body.echo),
  );
}

/** @param numBefore ids of the choice in earlier chunks */
export function choiceBody(piece: ChoicePiece, body: CompletionBody, numBefore: number) {
  const { prompt } = piece;
  const echoed = body.echo ? (prompt?.scored ?? []) : [];
  const scored: ScoredId[] = [
    ...echoed,
    ...Array.from(piece.ids, (id, i) => ({ id, logprobs: at(piece.logprobs, i) })),
  ];
  const hasLogprobs = body.logprobs !== null && (piece.logprobs !== undefined || echoed.length > 0);
  return {
    index: piece.index,
    text: piece.text,
    logprobs: hasLogprobs ? toLogprobsBody(scored, body.logprobs!, numBefore) : null,
    finish_reason: piece.finishReason,
    stop_reason: stopReason(piece.matchedStop),
    ...(body.return_token_ids ? { token_ids: [...piece.ids] } : {}),
    ...(body.return_token_ids && prompt ? { prompt_token_ids: [...prompt.ids] } : {}),
    ...(body.prompt_logprobs !== null && prompt?.scored
      ? { prompt_logprobs: toPromptLogprobs(prompt.scored, body.prompt_logprobs) }
      : {}),
  };
}

function at(logprobs: readonly ByteLogprobs[] | undefined, index: number): ByteLogprobs | null {
  return logprobs?.[index] ?? null;
}

/** Ids that a piece shows. */
export function numShown(piece: ChoicePiece, body: CompletionBody): number {
  return piece.ids.length + (body.echo ? (piece.prompt?.ids.length ?? 0) : 0);
}

/** Reads all sequences to their ends: the body of a response that is not streamed. */
export async function collectCompletion(
  head: CompletionHead,
  body: CompletionBody,
  pieces: readonly AsyncGenerator<ChoicePiece>[],
) {
  const choices = await wholeChoices(pieces);
  const size = choicesPerPrompt(body);
  return {
    ...head,
    choices: keepBest(choices, body.n, size).map((piece, index) => choiceBody({ ...piece, index }, body, 0)),
    usage: usageBody(
      choices.map((piece) => piece.usage!),
      size,
    ),
  };
}

/** Of each prompt's choices the `n` whose ids have the highest mean log-prob, best first; all in order if n is all. */
function keepBest(choices: readonly ChoicePiece[], n: number, size: number): ChoicePiece[] {
  if (n === size) return [...choices];
  const kept: ChoicePiece[] = [];
  for (let first = 0; first < choices.length; first += size) {
    const ofPrompt = choices.slice(first, first + size);
    kept.push(...ofPrompt.sort((a, b) => meanLogprob(b) - meanLogprob(a)).slice(0, n));
  }
  return kept;
}

function meanLogprob({ logprobs = [] }: ChoicePiece): number {
  if (logprobs.length === 0) return Number.NEGATIVE_INFINITY;
  return logprobs.reduce((sum, { logprob }) => sum + logprob, 0) / logprobs.length;
}
