/** Bytes to score: at hand, or as they come. A stream is sent only once, so that it is never tried again. */
export type ScoreSource = Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

export interface ScoreOptions {
  /** Id of the model; the served one when left out. */
  readonly model?: string | undefined;
  /** -1 000 000–1 000 000 (0); waiting requests with a lower value start first. */
  readonly priority?: number | undefined;
}

/** How well the model predicts some bytes, each from all before it. */
export interface ScoreSummary {
  readonly id: string | undefined;
  readonly model: string;
  /** How many there were. */
  readonly bytes: number;
  /** Mean of -log2 of a byte's probability. */
  readonly bitsPerByte: number;
  /** Natural logarithm of the probability of the whole. */
  readonly totalLogprob: number;
  /** Mean entropy of the distributions, in bits; with `return: "entropy"`. */
  readonly meanEntropy: number | undefined;
  /** `x-request-id`: what the server's log calls the request. */
  readonly requestId: string | undefined;
}

/** `logprobs`: of the bytes themselves; `entropy`: of the distributions that predicted them. */
export type ScoreKind = "logprobs" | "entropy";

/** Numbers (nats) of the bytes from `offset` on, one per byte. */
export type ScorePiece<K extends ScoreKind> = { readonly offset: number } & { readonly [key in K]: Float64Array };
