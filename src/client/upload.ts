import type { StreamRequest } from "./completion-request.js";
import { toRequestBody } from "./request-body.js";
import type { PushProgress } from "./stream/stream-options.js";

/** How far a prompt is that is being uploaded. */
export interface UploadProgress extends PushProgress {
  /** Bytes of the whole prompt, where the source says how many they are. */
  readonly totalBytes: number | undefined;
}

/** How an uploaded prompt is continued. */
export type UploadOptions = Omit<StreamRequest, "prompt" | "echo" | "truncatePromptTokens"> & {
  /** Told while the prompt is sent, about every `progressSeconds`, and once when all of it has been fed. */
  readonly onProgress?: ((progress: UploadProgress) => void) | undefined;
  /** 0.1–3600 (1): seconds between two calls of `onProgress`. */
  readonly progressSeconds?: number | undefined;
};

const DEFAULT_PROGRESS_SECONDS = 1;
/** Fields that are texts: they are sent as they are, all others as JSON. */
const TEXTS = ["model", "cache_salt", "session_id", "request_id", "user"];

/** Query of an upload whose answer is events. @throws TypeError as `toRequestBody` */
export function toUploadQuery({ onProgress, progressSeconds, ...options }: UploadOptions): URLSearchParams {
  const { prompt: _, ...fields } = toRequestBody({ ...options, prompt: "" });
  const query = new URLSearchParams({ return: "events" });
  const report = onProgress === undefined ? {} : { progress: progressSeconds ?? DEFAULT_PROGRESS_SECONDS };
  const all = { ...fields, stream_options: { include_usage: true }, return_token_ids: true, ...report };
  for (const [name, value] of Object.entries(all)) query.set(name, toText(name, value));
  return query;
}

function toText(name: string, value: unknown): string {
  if (typeof value === "string" && TEXTS.includes(name)) return value;
  // A text that looks like a list would be read as one.
  return JSON.stringify(name === "stop" && typeof value === "string" ? [value] : value);
}
