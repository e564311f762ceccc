import type { GenerationEvent, Timings, Usage } from "../core/generation-event.js";
import { FEED_ONLY, type GenerationRequest } from "../core/generation-request.js";
import { GREEDY, type SamplingParams } from "../core/sampling-params.js";
import type { SequenceState } from "../core/state-snapshot.js";
import type { AnswerClass, VqaFormat } from "../core/vqa-format.js";
import { MblmError } from "../errors.js";
import { type RatedAnswer, rateAnswers } from "./answers.js";
import { VqaTemplate } from "./vqa-template.js";

/** Runs a generation. */
export type Submit = (request: GenerationRequest, signal: AbortSignal) => AsyncIterable<GenerationEvent>;

export interface Question {
  /** As the template encodes it. */
  readonly bytes: Uint8Array;
  /** How the answer is chosen among the model's answers; the most likely one when left out. */
  readonly sampling?: SamplingParams;
}

export interface AskOptions {
  readonly id: string;
  readonly priority: number;
  /** Images are shared only with requests of the same salt. */
  readonly cacheSalt: string | null;
}

export interface QuestionAnswer {
  readonly answer: RatedAnswer;
  /** All of the model's answers, the most likely first. */
  readonly rated: readonly RatedAnswer[];
  readonly usage: Usage;
  readonly timings: Timings;
}

export interface VisualAnswers {
  readonly answers: readonly QuestionAnswer[];
  /** Of the image alone, where the model reads it before all questions. */
  readonly image: { readonly usage: Usage; readonly timings: Timings } | undefined;
}

/** Questions of one request that the engine has at a time; each carries the image's state with it. */
const MAX_CONCURRENT = 8;
const ONE_ID: GenerationRequest["stop"] = { ...FEED_ONLY.stop, maxNewBytes: 1 };

type Finished = Extract<GenerationEvent, { type: "finished" }>;

/** Answers questions about images. An answer does not depend on what else is asked, or on what is cached. */
export class VisualAnswerer {
  readonly template: VqaTemplate;
  readonly #answers: readonly AnswerClass[];

  constructor(
    format: VqaFormat,
    private readonly vocabularySize: number,
    private readonly submit: Submit,
  ) {
    this.template = new VqaTemplate(format);
    this.#answers = format.answers;
  }

  /**
   * Reads the image once where the model's order allows it, then answers all questions from that state.
   *
   * @param image its bytes in the model's encoding
   * @param controller aborted when anything fails
   * @throws MblmError what the engine refuses or fails with; `aborted`
   */
  async answer(
    image: Uint8Array,
    questions: readonly Question[],
    options: AskOptions,
    controller: AbortController,
  ): Promise<VisualAnswers> {
    const segment = this.template.imageSegment(image);
    try {
      const seen = this.template.isImageFirst ? await this.#see(segment, options, controller.signal) : undefined;
      const answers = new Array<QuestionAnswer>(questions.length);
      const pending = questions.entries();
      const work = async (): Promise<void> => {
        for (const [i, question] of pending) {
          const request = this.#toRequest(question, segment, seen?.state, { ...options, id: `${options.id}-${i}` });
          // Only what comes first may be refused for overload: what has begun is not broken off.
          const waitsForRoom = seen !== undefined || i > 0;
          answers[i] = await this.#ask({ ...request, waitsForRoom }, controller.signal);
        }
      };
      await Promise.all(Array.from({ length: Math.min(questions.length, MAX_CONCURRENT) }, work));
      return { answers, image: seen };
    } catch (thrown) {
      controller.abort();
      throw thrown;
    }
  }

  /** The state after the image; found in the prefix cache when it was seen before. */
  async #see(segment: Uint16Array, options: AskOptions, signal: AbortSignal): Promise<Finished> {
    const request = { ...FEED_ONLY, ...requestFields(options), prompt: segment, returnState: true };
    return (await readToEnd(this.submit(request, signal))).end;
  }

  #toRequest(
    { bytes, sampling = GREEDY }: Question,
    segment: Uint16Array,
    state: SequenceState | undefined,
    options: AskOptions,
  ): GenerationRequest {
    return {
      ...requestFields(options),
      ...(state === undefined
        ? { prompt: this.template.prompt(segment, bytes) }
        : { prompt: this.template.questionAfterImage(bytes), resume: state }),
      stop: ONE_ID,
      sampling: { ...sampling, allowedIds: this.#answers.map(({ id }) => id) },
      numLogprobs: this.vocabularySize,
    };
  }

  async #ask(request: GenerationRequest, signal: AbortSignal): Promise<QuestionAnswer> {
    const { end, bytes } = await readToEnd(this.submit(request, signal));
    const rated = rateAnswers(bytes!.logprobs![0]!.top, this.#answers);
    const answer = rated.find(({ id }) => id === bytes!.ids[0])!;
    return { answer, rated, usage: end.usage, timings: end.timings };
  }
}

function requestFields({ id, priority, cacheSalt }: AskOptions) {
  return { id, priority, ...(cacheSalt === null ? {} : { cacheSalt }) };
}

/** @throws MblmError when the sequence failed or was cut off */
async function readToEnd(events: AsyncIterable<GenerationEvent>) {
  let bytes: Extract<GenerationEvent, { type: "bytes" }> | undefined;
  for await (const event of events) {
    if (event.type === "bytes") bytes = event;
    if (event.type === "failed") throw new MblmError(event.code, event.message);
    if (event.type !== "finished") continue;
    if (event.reason === "abort") throw new MblmError("aborted", "The request was cancelled.");
    return { end: event, bytes };
  }
  throw new MblmError("engine_failed", "The engine ended a sequence without a word.");
}
