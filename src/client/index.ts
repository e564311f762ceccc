// Entry `mblm-server/client`.
export type { CallOptions, ClientOptions } from "./client-options.js";
export type {
  ChoiceEnd,
  ChoicePiece,
  ChoiceStreamEnd,
  Completion,
  CompletionChoice,
  CompletionHead,
  FinishReason,
  Logprobs,
  PromptLogprob,
  StreamEnd,
  Usage,
} from "./completion.js";
export type {
  ChoiceStreamRequest,
  CompletionRequest,
  GenerationOptions,
  LogprobOptions,
  Prompt,
  PromptList,
  ResponseFormat,
  StreamRequest,
  StructuredOutputs,
} from "./completion-request.js";
export {
  type ApiErrorFields,
  MblmApiError,
  MblmClientError,
  MblmConnectionError,
  MblmProtocolError,
  MblmTimeoutError,
} from "./errors.js";
export { MblmClient } from "./mblm-client.js";
export type { ResultStream } from "./result-stream.js";
export type { ScoreKind, ScoreOptions, ScorePiece, ScoreSource, ScoreSummary } from "./score.js";
export type { Health, Model, VisualQuestions } from "./service.js";
export type { ByteStream } from "./stream/byte-stream.js";
export type { StreamConnection } from "./stream/connection.js";
export type { Generation } from "./stream/generation.js";
export type { SocketClass, SocketLike } from "./stream/socket.js";
export type {
  ConnectOptions,
  GenerationResult,
  PushProgress,
  PushScores,
  StreamGeneration,
  StreamOptions,
} from "./stream/stream-options.js";
export { type BytePair, toWebStreams } from "./stream/web-streams.js";
export type { UploadOptions, UploadProgress } from "./upload.js";
export type { AnswerRating, ImageAnswer, ImageAnswers, ImageSource, VqaOptions } from "./vqa.js";
