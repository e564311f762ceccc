import { requestIdOf } from "./api-error.js";
import { toUsage } from "./completion-answer.js";
import { MblmProtocolError } from "./errors.js";
import type { AnswerRating, ImageAnswers } from "./vqa.js";
import type { WireUsage } from "./wire.js";

interface WireRating {
  readonly answer: string;
  readonly probability: number;
  readonly logprob: number;
}

/** The answer as it is on the wire. */
interface WireAnswers {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint?: string;
  readonly image: ImageAnswers["image"];
  readonly answers: readonly (WireRating & {
    readonly index: number;
    readonly question: string;
    readonly top_answers: readonly WireRating[];
    readonly timings: { readonly queue_ms: number; readonly prefill_ms: number; readonly decode_ms: number };
  })[];
  readonly usage: WireUsage;
  readonly timings: {
    readonly image_decode_ms: number;
    readonly image_prefill_ms: number | null;
    readonly total_ms: number;
  };
}

/** @throws MblmProtocolError when it is none, or answers another number of questions */
export function toImageAnswers(
  value: Readonly<Record<string, unknown>>,
  numQuestions: number,
  response: Response,
): ImageAnswers {
  if (value.object !== "vqa" || !Array.isArray(value.answers) || value.answers.length !== numQuestions) {
    throw new MblmProtocolError(`the answer is none to ${numQuestions} questions about an image`);
  }
  const wire = value as unknown as WireAnswers;
  return {
    id: wire.id,
    created: wire.created,
    model: wire.model,
    systemFingerprint: wire.system_fingerprint,
    image: wire.image,
    answers: wire.answers.map(({ index, question, timings, top_answers, ...rating }) => ({
      index,
      question,
      ...toRating(rating),
      topAnswers: top_answers.map(toRating),
      timings: { queueMs: timings.queue_ms, prefillMs: timings.prefill_ms, decodeMs: timings.decode_ms },
    })),
    usage: toUsage(wire.usage),
    timings: {
      imageDecodeMs: wire.timings.image_decode_ms,
      imagePrefillMs: wire.timings.image_prefill_ms ?? undefined,
      totalMs: wire.timings.total_ms,
    },
    requestId: requestIdOf(response),
  };
}

function toRating({ answer, probability, logprob }: WireRating): AnswerRating {
  return { answer, probability, logprob };
}
