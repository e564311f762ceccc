import { ChatAnswer, ChatBody, ChatChunk } from "./chat/chat-schema.js";
import { CompletionAnswer, CompletionBody } from "./completions/completions-schema.js";
import { Model } from "./info/info-routes.js";
import { ErrorAnswer } from "./schemas/errors.js";
import { ScoreAnswer } from "./score/score-schema.js";
import { SessionAnswer, SessionBody } from "./sessions/session-schema.js";
import { DetokenizeBody, TokenizeBody } from "./tokenizer/tokenizer-routes.js";
import { UploadProgressEvent } from "./uploads/upload-progress.js";
import { VqaAnswer, VqaBody, VqaForm } from "./vqa/vqa-schema.js";

/** Schemas that the contract lists by name. */
export const SHARED_SCHEMAS: readonly object[] = [
  CompletionBody,
  CompletionAnswer,
  UploadProgressEvent,
  ChatBody,
  ChatAnswer,
  ChatChunk,
  VqaBody,
  VqaForm,
  VqaAnswer,
  ScoreAnswer,
  TokenizeBody,
  DetokenizeBody,
  Model,
  SessionBody,
  SessionAnswer,
  ErrorAnswer,
];
