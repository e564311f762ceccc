import type { Usage } from "../completion.js";
import type { GenerationOptions } from "../completion-request.js";
import type { SocketClass } from "./socket.js";

/** Settings of a connection for byte streams. */
export interface ConnectOptions {
  /** In place of the global `WebSocket`; Node has one from version 22 on, before that `ws` is one. */
  readonly webSocket?: SocketClass | undefined;
  /** Tries to connect, in a row, before everything on the connection fails; ≥ 0, default 8 (about half a minute). */
  readonly maxRetries?: number | undefined;
}

/** What a stream is opened with. */
export interface StreamOptions {
  /** The stream is this session until it is closed; a connection that breaks is then no end of it. */
  readonly sessionId?: string | undefined;
  /** The session's model, or the server's default, when left out. */
  readonly model?: string | undefined;
  /** Makes the session if there is none (false). */
  readonly create?: boolean | undefined;
  /** Takes the session from whoever streams it now (false). */
  readonly takeOver?: boolean | undefined;
  /** Bytes that may wait to be read here before the server waits, 1–16 Mi (256 Ki). */
  readonly window?: number | undefined;
  /** Scores what is pushed (false). */
  readonly score?: boolean | undefined;
  /** 0–20 (0): with `score`, most likely bytes at each place. */
  readonly topLogprobs?: number | undefined;
  /** Told, about every `progressSeconds`, how far the model is with what is pushed, while it is behind. */
  readonly onProgress?: ((progress: PushProgress) => void) | undefined;
  /** 0.1–3600 (1): seconds between two calls of `onProgress`. */
  readonly progressSeconds?: number | undefined;
}

/** How far the model is with bytes that were sent to it. */
export interface PushProgress {
  /** Bytes that the server has. */
  readonly receivedBytes: number;
  /** Bytes of them that the model has been fed. */
  readonly prefilledBytes: number;
  /** Fed since the report before. */
  readonly bytesPerSecond: number;
}

/** How a stream goes on; as completions, with 256 bytes where `maxTokens` is left out. */
export type StreamGeneration = Omit<
  GenerationOptions,
  "model" | "echo" | "truncatePromptTokens" | "sessionId" | "requestId" | "user"
>;

/** What is known when a generation has ended. */
export interface GenerationResult {
  readonly finishReason: "stop" | "length" | "cancelled";
  /** The stop's text (its bytes where it has none) or id. */
  readonly stopReason: string | number | readonly number[] | undefined;
  readonly usage: Usage;
  /** Length of the context. */
  readonly contextBytes: number;
}

/** Log-probs of bytes that were pushed, in nats. */
export interface PushScores {
  /** Place in the context of the first byte scored here. */
  readonly offset: number;
  readonly logprobs: readonly number[];
  /** Most likely bytes at each place, best first; if they were asked for. */
  readonly topLogprobs: readonly (readonly { readonly id: number; readonly logprob: number }[])[] | undefined;
}
