import { toUsage } from "../completion-answer.js";
import { MblmApiError, MblmProtocolError } from "../errors.js";
import { readObject } from "../read-json.js";
import type { WireProgress } from "../wire.js";
import type { GenerationResult, PushProgress, PushScores } from "./stream-options.js";

export type WireUsage = Parameters<typeof toUsage>[0];

/** What the server says; what it does not say is undefined. */
export interface ServerMessage extends WireProgress {
  readonly type: string;
  readonly stream: number | null;
  readonly frame?: number;
  readonly frames?: number;
  readonly bytes?: number;
  readonly said_bytes?: number;
  readonly said_messages?: number;
  readonly window?: number;
  readonly session_id?: string | null;
  readonly offset?: number;
  readonly logprobs?: readonly number[];
  readonly top_logprobs?: PushScores["topLogprobs"];
  readonly finish_reason?: GenerationResult["finishReason"];
  readonly stop_reason?: string | number | readonly number[] | null;
  readonly usage?: WireUsage;
  readonly error?: unknown;
}

/** Messages that the server counts, and can say again. */
const COUNTED = ["finished", "scores", "saved", "forked", "error"];

/** @throws MblmProtocolError */
export function toMessage(text: string): ServerMessage {
  const message = readObject(text);
  const { type, stream } = message;
  if (typeof type !== "string" || !(stream === null || typeof stream === "number")) {
    throw new MblmProtocolError("a message has no type or no stream");
  }
  return message as unknown as ServerMessage;
}

/** An error counts if it is about a frame that the server counts. */
export function isCounted({ type, frame }: ServerMessage): boolean {
  return COUNTED.includes(type) && (type !== "error" || frame !== undefined);
}

export function toResult(message: ServerMessage): GenerationResult {
  const { finish_reason, usage, bytes } = message;
  if (finish_reason === undefined || usage === undefined || bytes === undefined) {
    throw new MblmProtocolError("the end of a generation lacks something");
  }
  return {
    finishReason: finish_reason,
    stopReason: message.stop_reason ?? undefined,
    usage: toUsage(usage),
    contextBytes: bytes,
  };
}

export function toScores({ offset, logprobs, top_logprobs }: ServerMessage): PushScores {
  if (offset === undefined || logprobs === undefined) throw new MblmProtocolError("scores lack something");
  return { offset, logprobs, topLogprobs: top_logprobs };
}

/** The fields of a report, of a stream or an upload. @throws MblmProtocolError */
export function toProgress({ received_bytes, prefilled_bytes, bytes_per_second }: WireProgress): PushProgress {
  if (received_bytes === undefined || prefilled_bytes === undefined || bytes_per_second === undefined) {
    throw new MblmProtocolError("a report on progress lacks something");
  }
  return { receivedBytes: received_bytes, prefilledBytes: prefilled_bytes, bytesPerSecond: bytes_per_second };
}

/** The upgrade's status: there is no answer of HTTP behind a message. */
const STATUS = 101;

export function toError({ error }: ServerMessage): MblmApiError {
  const fields = (typeof error === "object" && error !== null ? error : {}) as Record<string, unknown>;
  const text = (key: string): string | undefined => {
    const value = fields[key];
    return typeof value === "string" ? value : undefined;
  };
  return new MblmApiError(text("message") ?? "the server gave no reason", {
    status: STATUS,
    code: text("code"),
    type: text("type"),
    param: text("param"),
    requestId: undefined,
    retryAfterSeconds: undefined,
  });
}
