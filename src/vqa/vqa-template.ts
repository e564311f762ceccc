import type { VqaFormat } from "../core/vqa-format.js";
import { MblmError } from "../errors.js";

/** Ids that are special although they are bytes: a text that has them could not be told from its end. */
const FIRST_NON_ASCII = 128;
const NUM_BYTES = 256;

/** The ids that a model is asked by, as `scripts/multiscale/vqa/layout.py` lays them out. */
export class VqaTemplate {
  constructor(private readonly format: VqaFormat) {}

  /** Whether an image comes before all questions, so that its state serves any of them. */
  get isImageFirst(): boolean {
    return this.format.order === "image_question_answer";
  }

  /** @param content the image's bytes in the model's encoding */
  imageSegment(content: Uint8Array): Uint16Array {
    return this.#segment(this.format.segmentIds.startOfImage, content);
  }

  /** What follows an image that comes first; the answer is the next id. */
  questionAfterImage(question: Uint8Array): Uint16Array {
    return concatenate(this.#text(question), Uint16Array.of(this.format.segmentIds.startOfText));
  }

  /** A whole prompt in any order; the answer is the next id. */
  prompt(imageSegment: Uint16Array, question: Uint8Array): Uint16Array {
    const rest = concatenate(imageSegment, this.questionAfterImage(question));
    return this.isImageFirst ? rest : concatenate(this.#text(question), rest);
  }

  /**
   * The bytes of a question.
   *
   * @param field its name in errors
   * @throws MblmError `invalid_request` when it is empty, too long, or has bytes that are the model's special ids
   */
  encodeQuestion(question: string, field: string): Uint8Array {
    const bytes = new TextEncoder().encode(question);
    const { maxQuestionBytes, segmentIds } = this.format;
    const refuse = (problem: string) => new MblmError("invalid_request", `${field}: ${problem}`, { field });
    if (bytes.length === 0) throw refuse("must not be empty");
    if (bytes.length > maxQuestionBytes) {
      throw refuse(`has ${bytes.length} bytes; this model takes at most ${maxQuestionBytes}`);
    }
    const hasSpecialBytes = Object.values(segmentIds).some((id) => id < NUM_BYTES);
    if (hasSpecialBytes && bytes.some((byte) => byte >= FIRST_NON_ASCII)) {
      throw refuse("must be ASCII: this model's special ids are among the bytes above 127");
    }
    return bytes;
  }

  #text(content: Uint8Array): Uint16Array {
    return this.#segment(this.format.segmentIds.startOfText, content);
  }

  #segment(start: number, content: Uint8Array): Uint16Array {
    const { align, segmentIds } = this.format;
    const length = content.length + 2;
    const segment = new Uint16Array(Math.ceil(length / align) * align).fill(segmentIds.pad);
    segment[0] = start;
    segment.set(content, 1);
    segment[length - 1] = segmentIds.end;
    return segment;
  }
}

function concatenate(first: Uint16Array, second: Uint16Array): Uint16Array {
  const ids = new Uint16Array(first.length + second.length);
  ids.set(first);
  ids.set(second, first.length);
  return ids;
}
