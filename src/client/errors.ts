/** Any failure of a call that is not the caller's own abort: that one rejects with the signal's reason, as fetch does. */
export class MblmClientError extends Error {
  override readonly name: string = "MblmClientError";
}

/** What an {@link MblmApiError} is made of. */
export interface ApiErrorFields {
  /** HTTP status of the answer; 200 when the failure came inside a stream that had begun, 101 on a WebSocket. */
  readonly status: number;
  /** The server's own word for the failure (`overloaded`, `context_length_exceeded`, …); undefined if it gave none. */
  readonly code: string | undefined;
  /** OpenAI's class of the failure (`invalid_request_error`, `rate_limit_error`, …). */
  readonly type: string | undefined;
  /** The field of the request to blame, as it is spelled on the wire (`max_tokens`). */
  readonly param: string | undefined;
  /** The answer's `x-request-id`: what the server's log calls the request. */
  readonly requestId: string | undefined;
  /** How long the server asks to wait before another try, in seconds; undefined if it does not say. */
  readonly retryAfterSeconds: number | undefined;
}

/** The server answered that it failed or refused. */
export class MblmApiError extends MblmClientError implements ApiErrorFields {
  override readonly name = "MblmApiError";
  readonly status: number;
  readonly code: string | undefined;
  readonly type: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(message: string, fields: ApiErrorFields) {
    super(message);
    this.status = fields.status;
    this.code = fields.code;
    this.type = fields.type;
    this.param = fields.param;
    this.requestId = fields.requestId;
    this.retryAfterSeconds = fields.retryAfterSeconds;
  }
}

/** No answer came, or it broke off before its end. `cause` is fetch's own error, if there is one. */
export class MblmConnectionError extends MblmClientError {
  override readonly name: string = "MblmConnectionError";
}

/** The server said nothing for longer than `timeoutMs`, or than fetch itself waits. */
export class MblmTimeoutError extends MblmConnectionError {
  override readonly name = "MblmTimeoutError";
}

/** The answer is not one of this API: probably another server, or something between that rewrites answers. */
export class MblmProtocolError extends MblmClientError {
  override readonly name = "MblmProtocolError";
}
