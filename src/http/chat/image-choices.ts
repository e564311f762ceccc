import type { Usage } from "../../core/generation-event.js";
import type { VisualAnswers } from "../../vqa/visual-answerer.js";
import type { ChoicePiece } from "../completions/completion-pieces.js";

/** Answers to a question about an image as choices of one piece each, whose text is the answer's word. */
export function imageChoices({ answers, image }: VisualAnswers): AsyncGenerator<ChoicePiece>[] {
  return answers.map(async function* ({ answer, usage }, index): AsyncGenerator<ChoicePiece> {
    yield {
      index,
      text: answer.text,
      prompt: { ids: NO_IDS, scored: undefined },
      ids: Uint16Array.of(answer.id),
      logprobs: undefined,
      finishReason: "stop",
      matchedStop: undefined,
      usage: image === undefined ? usage : sum(image.usage, usage),
    };
  });
}

const NO_IDS = new Uint16Array();

/** The prompt is the image and the question. */
function sum(image: Usage, question: Usage): Usage {
  return {
    promptBytes: image.promptBytes + question.promptBytes,
    generatedBytes: question.generatedBytes,
    cachedBytes: image.cachedBytes + question.cachedBytes,
  };
}
