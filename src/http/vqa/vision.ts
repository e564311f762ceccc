import { createHash } from "node:crypto";
import type { Config } from "../../config/schema.js";
import type { Clock } from "../../core/clock.js";
import type { ImageFormat } from "../../core/vqa-format.js";
import type { ModelMetrics } from "../../metrics/model-metrics.js";
import { ImageDecoder } from "../../vqa/image-decoder.js";
import type { ImageFileFormat } from "../../vqa/image-file.js";
import { preprocess } from "../../vqa/preprocess.js";
import { type AskOptions, type Question, VisualAnswerer, type VisualAnswers } from "../../vqa/visual-answerer.js";
import type { VqaTemplate } from "../../vqa/vqa-template.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { decodeImageText } from "./image-text.js";
import { parseHosts, RemoteImages } from "./remote-images.js";

/** Decoded images that are in memory at a time, and requests that may wait for their turn. */
const MAX_DECODING = 2;
const MAX_WAITING = 64;

/** An image as the model reads it. */
export interface ReadImage {
  readonly content: Uint8Array;
  readonly format: ImageFileFormat;
  /** Pixels of the file, upright. */
  readonly width: number;
  readonly height: number;
  readonly numBytes: number;
  readonly sha256: string;
  readonly seconds: number;
}

/** What routes need to answer questions about images, on a server whose model can. */
export class Vision {
  readonly #answerer: VisualAnswerer;

  private constructor(
    private readonly decoder: ImageDecoder,
    private readonly imageFormat: ImageFormat,
    private readonly remote: RemoteImages,
    private readonly maxImageBytes: number,
    private readonly metrics: ModelMetrics,
    private readonly clock: Clock,
    engine: EngineClient,
    private readonly deadline?: AbortSignal,
  ) {
    const { vqa, vocabularySize } = engine.info;
    this.#answerer = new VisualAnswerer(vqa!, vocabularySize, (request, signal) => engine.submit(request, signal));
  }

  /** The same for one request: its way to the engine, and what is aborted when its time is over. */
  on(engine: EngineClient, deadline: AbortSignal | undefined): Vision {
    const { decoder, imageFormat, remote, maxImageBytes, metrics, clock } = this;
    return new Vision(decoder, imageFormat, remote, maxImageBytes, metrics, clock, engine, deadline);
  }

  /**
   * Undefined for a model that sees no images.
   *
   * @throws MblmError `config_invalid`, or `runtime_unavailable` where images cannot be decoded
   */
  static async open(
    engine: EngineClient,
    config: Config,
    metrics: ModelMetrics,
    clock: Clock,
  ): Promise<Vision | undefined> {
    const { vqa } = engine.info;
    if (vqa === undefined) return undefined;
    const limits = { maxPixels: config.maxImagePixels, maxConcurrent: MAX_DECODING, maxWaiting: MAX_WAITING };
    const { maxImageBytes, allowedImageHosts } = config;
    const remote = new RemoteImages({ hosts: parseHosts(allowedImageHosts), maxBytes: maxImageBytes });
    const decoder = await ImageDecoder.open(limits);
    return new Vision(decoder, vqa.image, remote, maxImageBytes, metrics, clock, engine);
  }

  get template(): VqaTemplate {
    return this.#answerer.template;
  }

  /**
   * The file that a URL has in itself or, on a host that is listed, names.
   *
   * @param field the URL's name in errors
   * @throws MblmError `invalid_request`, `body_too_large`, `overloaded`, `deadline_exceeded` or `aborted`
   */
  async fileAt(url: string, field: string, stop: AbortSignal): Promise<Uint8Array> {
    if (/^data:/i.test(url)) return decodeImageText(url, field, this.maxImageBytes);
    return this.remote.fetch(url, field, this.#inTime(stop));
  }

  /** @throws MblmError `invalid_request`, `overloaded`, `deadline_exceeded` or `aborted` */
  async read(file: Uint8Array, stop: AbortSignal): Promise<ReadImage> {
    const startedAt = this.clock.now();
    const decoded = await this.decoder.decode(file, this.#inTime(stop), async ({ format, pixels }) => ({
      format,
      content: await preprocess(pixels, this.imageFormat),
      width: pixels.width,
      height: pixels.height,
    }));
    const seconds = this.clock.now() - startedAt;
    this.metrics.imageDecoded(seconds);
    const sha256 = createHash("sha256").update(file).digest("hex");
    return { ...decoded, numBytes: file.length, sha256, seconds };
  }

  /** @throws MblmError what the engine refuses or fails with; `aborted` */
  async answer(
    image: ReadImage,
    questions: readonly Question[],
    options: AskOptions,
    controller: AbortController,
  ): Promise<VisualAnswers> {
    const answers = await this.#answerer.answer(image.content, questions, options, controller);
    this.metrics.questionsAnswered(questions.length);
    return answers;
  }

  #inTime(stop: AbortSignal): AbortSignal {
    return this.deadline === undefined ? stop : AbortSignal.any([stop, this.deadline]);
  }
}
