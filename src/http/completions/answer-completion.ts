import type { FastifyReply } from "fastify";
import type { AdmittedSequence } from "../admission.js";
import type { SseWriter } from "../sse-writer.js";
import { streamChoices } from "../stream-choices.js";
import { type ChoicePiece, mergePieces } from "./completion-pieces.js";
import { choicesPerPrompt } from "./completion-request.js";
import { type CompletionHead, choiceBody, choicePieces, collectCompletion, numShown } from "./completion-response.js";
import type { CompletionBody } from "./completions-schema.js";

/** Generations of a request that the engine has taken, and what their answer begins with. */
export interface TakenCompletion {
  readonly head: CompletionHead;
  readonly body: CompletionBody;
  /** One per sequence; undefined for one that was not kept and is not reported. */
  readonly prompts: readonly (Uint16Array | undefined)[];
  readonly sequences: readonly AdmittedSequence[];
}

/** The answer as one object. */
export function wholeCompletion({ head, body, prompts, sequences }: TakenCompletion) {
  return collectCompletion(head, body, choicePieces(body, prompts, sequences));
}

/** Writes the answer as events, to the last. */
export async function writeCompletion(
  { head, body, prompts, sequences }: TakenCompletion,
  writer: SseWriter,
  reply: FastifyReply,
  controller: AbortController,
): Promise<FastifyReply> {
  const pieces = choicePieces(body, prompts, sequences);
  const offsets = new Array<number>(pieces.length).fill(0);
  const toChoice = (piece: ChoicePiece): object => {
    const choice = choiceBody(piece, body, offsets[piece.index]!);
    offsets[piece.index]! += numShown(piece, body);
    return choice;
  };
  const options = {
    head,
    toChoice,
    merge: mergePieces,
    interval: body.stream_interval,
    showsIds: body.return_token_ids || body.logprobs !== null,
    wantsUsage: body.stream_options?.include_usage === true,
    size: choicesPerPrompt(body),
  };
  await streamChoices(writer, pieces, options, controller);
  return reply;
}
