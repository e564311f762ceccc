import type { RatedAnswer } from "../../vqa/answers.js";
import type { VisualAnswers } from "../../vqa/visual-answerer.js";
import { usageBody } from "../wire.js";
import type { ReadImage } from "./vision.js";
import type { VqaRequest } from "./vqa-request.js";
import type { VqaAnswer } from "./vqa-schema.js";

type Head = Pick<VqaAnswer, "id" | "created" | "model" | "system_fingerprint">;

/** @param seconds since the request's arrival */
export function vqaBody(
  head: Head,
  { texts, topAnswers }: VqaRequest,
  image: ReadImage,
  { answers, image: seen }: VisualAnswers,
  seconds: number,
): VqaAnswer {
  return {
    ...head,
    object: "vqa",
    image: {
      format: image.format,
      width: image.width,
      height: image.height,
      bytes: image.numBytes,
      sha256: image.sha256,
    },
    answers: answers.map(({ answer, rated, timings }, index) => ({
      index,
      question: texts[index]!,
      ...rating(answer),
      top_answers: rated.slice(0, topAnswers).map(rating),
      timings: {
        queue_ms: milliseconds(timings.queueSeconds),
        prefill_ms: milliseconds(timings.prefillSeconds),
        decode_ms: milliseconds(timings.decodeSeconds),
      },
    })),
    usage: vqaUsage({ answers, image: seen }),
    timings: {
      image_decode_ms: milliseconds(image.seconds),
      image_prefill_ms:
        seen === undefined ? null : milliseconds(seen.timings.queueSeconds + seen.timings.prefillSeconds),
      total_ms: milliseconds(seconds),
    },
  };
}

/** Every id that was fed counts once: that of an image which its questions share, too. */
export function vqaUsage({ answers, image }: VisualAnswers) {
  const usages = answers.map(({ usage }) => usage);
  return usageBody(image === undefined ? usages : [image.usage, ...usages], 1);
}

function rating({ text, probability, logprob }: RatedAnswer) {
  return { answer: text, probability, logprob };
}

/** Microseconds are as fine as it gets. */
function milliseconds(seconds: number): number {
  return Math.round(seconds * 1e6) / 1e3;
}
