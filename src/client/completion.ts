/** `stop`: a stop sequence, a stop id or the model's end; `length`: as many bytes as were asked for. */
export type FinishReason = "stop" | "length";

/** What a request took. Tokens are bytes. */
export interface Usage {
  readonly promptTokens: number;
  /** Of all choices. */
  readonly completionTokens: number;
  readonly totalTokens: number;
  /** Prompt bytes whose state came from the prefix cache. */
  readonly cachedTokens: number;
}

/** Log-probs (nats) of a choice's bytes; the lists run parallel. */
export interface Logprobs {
  /** ASCII as itself, other bytes as `bytes:\xNN`, special ids as `id:N`. */
  readonly tokens: readonly string[];
  /** Null where there is none: the first byte of an echoed prompt. */
  readonly tokenLogprobs: readonly (number | null)[];
  /** The most likely ones by name. */
  readonly topLogprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** Place in the choice's output, in bytes. */
  readonly textOffset: readonly number[];
}

/** One id's log-prob at one place of the prompt. */
export interface PromptLogprob {
  /** Nats. */
  readonly logprob: number;
  /** 1 is the most likely; null where it is not known. */
  readonly rank: number | null;
  readonly decodedToken: string;
}

/** A part of one choice's output, as it comes. */
export interface ChoicePiece {
  /** Which choice: prompt p's continuation k is number p·n + k. */
  readonly index: number;
  /** Whole characters; bytes that are no UTF-8 are U+FFFD. May be empty. */
  readonly text: string;
  /** The exact bytes, without special ids; with `echo`, the prompt's come first. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The generated ids: bytes, and special ids above 255. */
  readonly tokenIds: readonly number[];
  /** The prompt's ids after truncation; in the first piece of a choice. */
  readonly promptTokenIds: readonly number[] | undefined;
  /** Present when asked for. */
  readonly logprobs: Logprobs | undefined;
  /** For each byte of the prompt: log-probs by id. Present in the first piece, when asked for. */
  readonly promptLogprobs: readonly (Readonly<Record<string, PromptLogprob>> | null)[] | undefined;
  /** Null but in the last piece. */
  readonly finishReason: FinishReason | null;
  /** The stop text (its bytes where it is no text) or id that ended the output; null if none did. */
  readonly stopReason: string | Uint8Array<ArrayBuffer> | number | null;
}

/** One whole continuation. */
export interface CompletionChoice extends ChoicePiece {
  readonly finishReason: FinishReason;
}

/** What identifies an answer. */
export interface CompletionHead {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  /** Model and server that answered; bytes for a seed are the same while it is. */
  readonly systemFingerprint: string | undefined;
  /** `x-request-id`: what the server's log calls the request. */
  readonly requestId: string | undefined;
}

/** A completion as one answer. */
export interface Completion extends CompletionHead {
  readonly choices: readonly CompletionChoice[];
  readonly usage: Usage | undefined;
}

/** How one choice of a stream ended. */
export interface ChoiceEnd {
  readonly finishReason: FinishReason;
  readonly stopReason: string | Uint8Array<ArrayBuffer> | number | null;
}

/** What is known when a stream of one continuation has ended. */
export interface StreamEnd extends CompletionHead, ChoiceEnd {
  readonly usage: Usage | undefined;
}

/** What is known when a stream of any number of continuations has ended. */
export interface ChoiceStreamEnd extends CompletionHead {
  /** By index. */
  readonly choices: readonly ChoiceEnd[];
  readonly usage: Usage | undefined;
}
