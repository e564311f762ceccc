import type { ImageSource, VqaOptions } from "./vqa.js";

/**
 * Image and questions as a form.
 *
 * @throws TypeError when they are none
 */
export function toVqaForm(image: ImageSource, questions: readonly string[], options: VqaOptions): FormData {
  if (questions.length === 0 || !questions.every((question) => typeof question === "string")) {
    throw new TypeError("the question must be a text, or a list of at least one");
  }
  const fields = {
    model: options.model,
    top_answers: options.topAnswers,
    cache_salt: options.cacheSalt,
    priority: options.priority,
  };
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) form.append(name, String(value));
  for (const question of questions) form.append("question", question);
  form.append("image", toBlob(image), "image");
  return form;
}

function toBlob(image: ImageSource): Blob {
  if (image instanceof Blob) return image;
  if (image instanceof Uint8Array || image instanceof ArrayBuffer) return new Blob([image as Uint8Array<ArrayBuffer>]);
  throw new TypeError("the image must be a Uint8Array, ArrayBuffer or Blob");
}
