import type { Usage } from "./completion.js";

/** The file of an image: JPEG, PNG or WebP. */
export type ImageSource = Uint8Array | ArrayBuffer | Blob;

export interface VqaOptions {
  /** Id of the model; the served one when left out. */
  readonly model?: string | undefined;
  /** Answers that are listed with their probabilities (5). */
  readonly topAnswers?: number | undefined;
  /** Only requests with the same salt share the states of images. */
  readonly cacheSalt?: string | undefined;
  /** -1 000 000–1 000 000 (0); waiting requests with a lower value start first. */
  readonly priority?: number | undefined;
}

export interface AnswerRating {
  readonly answer: string;
  /** Among the model's answers: they sum to 1. */
  readonly probability: number;
  /** Natural logarithm of the probability among all ids. */
  readonly logprob: number;
}

export interface ImageAnswer extends AnswerRating {
  readonly index: number;
  readonly question: string;
  /** The most likely first. */
  readonly topAnswers: readonly AnswerRating[];
  /** In the engine. */
  readonly timings: { readonly queueMs: number; readonly prefillMs: number; readonly decodeMs: number };
}

export interface ImageAnswers {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  readonly systemFingerprint: string | undefined;
  readonly image: {
    readonly format: "jpeg" | "png" | "webp";
    /** Pixels, upright. */
    readonly width: number;
    readonly height: number;
    readonly bytes: number;
    /** Of the file. */
    readonly sha256: string;
  };
  /** One per question, in order. */
  readonly answers: readonly ImageAnswer[];
  readonly usage: Usage;
  readonly timings: {
    readonly imageDecodeMs: number;
    /** Undefined where every question needs its own pass over the image. */
    readonly imagePrefillMs: number | undefined;
    readonly totalMs: number;
  };
  /** `x-request-id`: what the server's log calls the request. */
  readonly requestId: string | undefined;
}
