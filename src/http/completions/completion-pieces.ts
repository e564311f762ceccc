import type { ByteLogprobs, FinishReason, GenerationEvent, PromptScores, Usage } from "../../core/generation-event.js";
import { MblmError } from "../../errors.js";
import type { AdmittedSequence } from "../admission.js";
import { TextStream } from "../text-stream.js";
import { type ScoredId, scoredPrompt } from "./logprobs.js";

/** One piece of a choice, on its way to the wire. */
export interface ChoicePiece {
  readonly index: number;
  readonly text: string;
  /** The prompt, in the first piece of each choice. */
  readonly prompt: PromptReport | undefined;
  readonly ids: Uint16Array;
  readonly logprobs: readonly ByteLogprobs[] | undefined;
  readonly finishReason: "stop" | "length" | null;
  readonly matchedStop: Uint8Array | number | undefined;
  readonly usage: Usage | undefined;
}

export interface PromptReport {
  readonly ids: Uint16Array;
  /** When the prompt was scored. */
  readonly scored: readonly ScoredId[] | undefined;
}

/** The scores of one prompt, on their way from the choice that was scored to all choices. */
export class SharedScores {
  readonly whole: Promise<PromptScores | undefined>;
  #settle!: (scores: PromptScores | undefined) => void;
  readonly #parts: PromptScores[] = [];

  constructor() {
    this.whole = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  push(part: PromptScores): void {
    this.#parts.push(part);
  }

  /** No more scores come. May be called more than once. */
  end(): void {
    this.#settle(this.#parts.length === 0 ? undefined : join(this.#parts));
  }
}

/**
 * Events of one sequence → pieces; the last one carries finish reason and usage. Throws when the engine failed it.
 *
 * @param prompt undefined for one that is not reported
 * @param scores of the prompt; filled by the choice for which `isScored`
 * @param echo whether the text begins with the prompt's
 */
export async function* toPieces(
  index: number,
  events: AdmittedSequence,
  prompt: Uint16Array | undefined,
  scores: SharedScores,
  isScored: boolean,
  echo: boolean,
): AsyncGenerator<ChoicePiece> {
  const text = new TextStream();
  let isFirst = true;
  try {
    for await (const event of events) {
      if (event.type === "started" || event.type === "checkpoint") continue;
      if (event.type === "prompt") {
        scores.push(event.scores);
        continue;
      }
      let report: PromptReport | undefined;
      let before = "";
      if (isFirst) {
        if (isScored) scores.end();
        const whole = await scores.whole;
        report = prompt && { ids: prompt, scored: whole && scoredPrompt(prompt, whole) };
        if (echo && prompt !== undefined) before = text.push(prompt);
      }
      isFirst = false;
      yield toPiece(index, event, text, before, report);
    }
  } finally {
    if (isScored) scores.end();
  }
}

const NO_IDS = new Uint16Array();

function toPiece(
  index: number,
  event: Exclude<GenerationEvent, { type: "started" | "prompt" | "checkpoint" }>,
  text: TextStream,
  before: string,
  prompt: PromptReport | undefined,
): ChoicePiece {
  if (event.type === "failed") throw new MblmError(event.code, event.message);
  const isLast = event.type === "finished";
  return {
    index,
    text: before + (isLast ? text.end() : text.push(event.ids)),
    prompt,
    ids: isLast ? NO_IDS : event.ids,
    logprobs: isLast ? undefined : event.logprobs,
    finishReason: isLast ? wireReason(event.reason) : null,
    matchedStop: isLast ? event.matchedStop : undefined,
    usage: isLast ? event.usage : undefined,
  };
}

function wireReason(reason: FinishReason): "stop" | "length" {
  if (reason === "abort") throw new MblmError("aborted", "The request was cancelled.");
  return reason;
}

/** Several pieces of one choice, in order, as one. */
export function mergePieces(pieces: readonly ChoicePiece[]): ChoicePiece {
  const last = pieces.at(-1)!;
  if (pieces.length === 1) return last;
  const withLogprobs = pieces.filter((piece) => piece.logprobs);
  return {
    ...last,
    prompt: pieces[0]!.prompt,
    text: pieces.map((piece) => piece.text).join(""),
    ids: Uint16Array.from(pieces.flatMap((piece) => [...piece.ids])),
    logprobs: withLogprobs.length > 0 ? withLogprobs.flatMap((piece) => piece.logprobs!) : undefined,
  };
}

/** Reads all choices to their ends. */
export function wholeChoices(choices: readonly AsyncGenerator<ChoicePiece>[]): Promise<ChoicePiece[]> {
  return Promise.all(
    choices.map(async (pieces) => {
      const all: ChoicePiece[] = [];
      for await (const piece of pieces) all.push(piece);
      return mergePieces(all);
    }),
  );
}

function join(parts: readonly PromptScores[]): PromptScores {
  return {
    logprobs: Float64Array.from(parts.flatMap(({ logprobs }) => [...logprobs])),
    top: parts.flatMap(({ top }) => top ?? []),
  };
}
