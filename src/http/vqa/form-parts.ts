import { invalid } from "../generation-options.js";
import { requireFileSize } from "./image-text.js";

/** What a form may have: the file `image`, `question` once or more, and other fields once each. Throws at the first part that is wrong. */
export class FormParts {
  readonly #texts: Record<string, string> = Object.create(null);
  readonly #questions: string[] = [];
  #image: Uint8Array[] | undefined;

  /** @param maxBytes of the image */
  constructor(private readonly maxBytes: number) {}

  /** A text field. */
  text(name: string, value: string): void {
    if (name === "question") this.#questions.push(value);
    else if (name === "image") throw invalid("image", "must be a file: a part with a file name");
    else if (name in this.#texts) throw invalid(name, "must be given once");
    else this.#texts[name] = value;
  }

  /** A file begins; returns what takes its bytes. */
  file(name: string): (chunk: Uint8Array) => void {
    if (name !== "image") throw invalid(name, "must be text, not a file; the file is image");
    if (this.#image !== undefined) throw invalid("image", "must be given once");
    const chunks: Uint8Array[] = [];
    this.#image = chunks;
    let length = 0;
    return (chunk) => {
      length += chunk.length;
      requireFileSize(length, "image", this.maxBytes);
      chunks.push(chunk);
    };
  }

  /** The image's file, when all parts have come. */
  get image(): Uint8Array {
    if (this.#image === undefined) throw invalid("image", "is required");
    return Buffer.concat(this.#image);
  }

  /** The text fields, not checked yet. */
  get fields(): Readonly<Record<string, string | readonly string[]>> {
    return this.#questions.length > 0 ? { ...this.#texts, question: this.#questions } : this.#texts;
  }
}
