import type { ByteLogprobs, FinishReason, GenerationEvent, Usage } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { MblmError } from "../errors.js";
import type { AdmittedSequence } from "./admission.js";
import type { CompletionBody } from "./completions-schema.js";
import { toLogprobsBody } from "./logprobs.js";
import { TextStream } from "./text-stream.js";

/** What a completion's chunks and body share. */
export interface CompletionHead {
  readonly id: string;
  readonly object: "text_completion";
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** One piece of a choice, on its way to the wire. */
export interface ChoicePiece {
  readonly index: number;
  readonly text: string;
  readonly ids: Uint16Array;
  readonly logprobs: readonly ByteLogprobs[] | undefined;
  readonly finishReason: "stop" | "length" | null;
  readonly usage: Usage | undefined;
}

/** Events of one sequence → pieces; the last one carries finish reason and usage. Throws when the engine failed it. */
export async function* toPieces(index: number, events: AdmittedSequence): AsyncGenerator<ChoicePiece> {
  const text = new TextStream();
  for await (const event of events) {
    const piece = toPiece(index, event, text);
    if (piece) yield piece;
  }
}

const NO_IDS = new Uint16Array();

function toPiece(index: number, event: GenerationEvent, text: TextStream): ChoicePiece | undefined {
  switch (event.type) {
    case "started":
      return undefined;
    case "bytes":
      return {
        index,
        text: text.push(event.ids),
        ids: event.ids,
        logprobs: event.logprobs,
        finishReason: null,
        usage: undefined,
      };
    case "finished":
      return {
        index,
        text: text.end(),
        ids: NO_IDS,
        logprobs: undefined,
        finishReason: wireReason(event.reason),
        usage: event.usage,
      };
    case "failed":
      throw new MblmError(event.code, event.message);
  }
}

function wireReason(reason: FinishReason): "stop" | "length" {
  if (reason === "abort") throw new MblmError("aborted", "The request was cancelled.");
  return reason;
}

export function choiceBody(
  piece: ChoicePiece,
  body: CompletionBody,
  prompt: Uint16Array | undefined,
  firstOffset: number,
) {
  return {
    text: piece.text,
    index: piece.index,
    logprobs: piece.logprobs ? toLogprobsBody(piece.ids, piece.logprobs, firstOffset) : null,
    finish_reason: piece.finishReason,
    ...(body.return_token_ids ? { token_ids: [...piece.ids] } : {}),
    ...(body.return_token_ids && prompt ? { prompt_token_ids: [...prompt] } : {}),
  };
}

/** Usage of the whole request: each prompt counts once, however many choices it has. */
export function usageBody(usages: readonly Usage[], n: number) {
  const first = usages.filter((_, i) => i % n === 0);
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

/** Reads all sequences to their ends: the body of a response that is not streamed. */
export async function collectCompletion(
  head: CompletionHead,
  body: CompletionBody,
  requests: readonly GenerationRequest[],
  sequences: readonly AdmittedSequence[],
) {
  const choices = await Promise.all(
    sequences.map(async (events, index) => {
      const pieces: ChoicePiece[] = [];
      for await (const piece of toPieces(index, events)) pieces.push(piece);
      return mergePieces(index, pieces);
    }),
  );
  return {
    ...head,
    choices: choices.map((piece, i) => choiceBody(piece, body, requests[i]!.prompt, 0)),
    usage: usageBody(
      choices.map((piece) => piece.usage!),
      body.n,
    ),
  };
}

function mergePieces(index: number, pieces: readonly ChoicePiece[]): ChoicePiece {
  const last = pieces.at(-1)!;
  const withLogprobs = pieces.filter((piece) => piece.logprobs);
  return {
    index,
    text: pieces.map((piece) => piece.text).join(""),
    ids: Uint16Array.from(pieces.flatMap((piece) => [...piece.ids])),
    logprobs: withLogprobs.length > 0 ? withLogprobs.flatMap((piece) => piece.logprobs!) : undefined,
    finishReason: last.finishReason,
    usage: last.usage,
  };
}
