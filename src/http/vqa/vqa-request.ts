import type { AskOptions, Question } from "../../vqa/visual-answerer.js";
import type { VqaTemplate } from "../../vqa/vqa-template.js";
import { invalid } from "../generation-options.js";
import { encodeText } from "../text.js";
import { decodeImageText } from "./image-text.js";
import type { FormLimits, VqaForm } from "./vqa-form.js";
import type { VqaBody } from "./vqa-schema.js";

/** A request in either form, checked. */
export interface VqaRequest {
  readonly image: Uint8Array;
  /** As they were asked. */
  readonly texts: readonly string[];
  readonly questions: readonly Question[];
  readonly topAnswers: number;
  readonly options: Omit<AskOptions, "id">;
  readonly requestId: string | null;
}

/** @throws MblmError `invalid_request` or `body_too_large`, naming the field */
export function fromBody(body: VqaBody, template: VqaTemplate, limits: FormLimits): VqaRequest {
  const { question, questions } = body;
  if (question === null && questions === null) throw invalid("question", "is required, or questions");
  if (question !== null && questions !== null) throw invalid("questions", "cannot be combined with question");
  const checked = question === null ? toQuestions(questions!, "questions", template, limits) : [];
  if (question !== null) checked.push(toQuestion(question, "question", template));
  return {
    image: decodeImageText(body.image, "image", limits.maxImageBytes),
    texts: questions ?? [question!],
    questions: checked,
    ...optionsOf(body),
  };
}

/** @throws MblmError `invalid_request`, naming the field */
export function fromForm({ fields, image }: VqaForm, template: VqaTemplate, limits: FormLimits): VqaRequest {
  const questions = toQuestions(fields.question, "question", template, limits);
  return { image, texts: fields.question, questions, ...optionsOf(fields) };
}

function toQuestions(
  texts: readonly string[],
  field: string,
  template: VqaTemplate,
  { maxQuestions }: FormLimits,
): Question[] {
  if (texts.length > maxQuestions)
    throw invalid(field, `${texts.length} questions; at most ${maxQuestions} are accepted`);
  return texts.map((text, i) => toQuestion(text, texts.length === 1 ? field : `${field}.${i}`, template));
}

export function toQuestion(text: string, field: string, template: VqaTemplate): Question {
  encodeText(field, text); // half a surrogate pair has no bytes
  return { bytes: template.encodeQuestion(text, field) };
}

function optionsOf(fields: {
  readonly top_answers: number;
  readonly priority: number;
  readonly cache_salt: string | null;
  readonly request_id: string | null;
}) {
  const { top_answers: topAnswers, priority, cache_salt: cacheSalt, request_id: requestId } = fields;
  return { topAnswers, options: { priority, cacheSalt }, requestId };
}
