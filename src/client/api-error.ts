/** Why a request failed. */
export interface ApiErrorDetails {
  /** HTTP status; undefined when no answer came, or when a stream that had begun failed. */
  readonly status?: number | undefined;
  /** Machine-readable, such as `invalid_request` or `overloaded`; `connection_failed` and `stream_cut` are the client's own. */
  readonly code: string;
  /** OpenAI's error type, such as `invalid_request_error`. */
  readonly type?: string | undefined;
  /** The field to blame, by its wire name. */
  readonly param?: string | undefined;
  /** The server's `x-request-id`. */
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
}

/** Every failure of the client but an abort, which throws the signal's reason. */
export class MblmApiError extends Error {
  override readonly name = "MblmApiError";
  readonly status: number | undefined;
  readonly code: string;
  readonly type: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;

  constructor(message: string, details: ApiErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.status = details.status;
    this.code = details.code;
    this.type = details.type;
    this.param = details.param;
    this.requestId = details.requestId;
  }
}

/** The error that a body of the server describes; a body of another kind becomes the message. */
export function toApiError(body: unknown, status?: number, requestId?: string): MblmApiError {
  const error = (body as { error?: Record<string, unknown> } | null)?.error;
  if (typeof error !== "object" || error === null) {
    return new MblmApiError(`The server answered ${status}: ${String(body).slice(0, 200)}`, {
      status,
      code: "unexpected_answer",
      requestId,
    });
  }
  const text = (key: string): string | undefined => (typeof error[key] === "string" ? error[key] : undefined);
  return new MblmApiError(text("message") ?? "The request failed.", {
    status,
    code: text("code") ?? "unknown",
    type: text("type"),
    param: text("param"),
    requestId,
  });
}
