// Entry `mblm-server/client`.
export { type ApiErrorDetails, MblmApiError } from "./api-error.js";
export {
  type CallOptions,
  type ClientOptions,
  MblmClient,
  type Model,
  type StreamOptions,
} from "./client.js";
export type { Choice, Completion, FinishReason, Logprobs, Usage } from "./completion.js";
export type { CompletionOptions, Prompt, StructuredOutputs } from "./completion-options.js";
export type { CompletionStream, StreamEnd } from "./completion-stream.js";
export type { Score, ScoreInput, ScorePiece } from "./score.js";
