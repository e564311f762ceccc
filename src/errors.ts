/** Every error a caller may see carries one of these codes; the HTTP layer maps them to statuses in one table. */
export type ErrorCode =
  | "invalid_request" // the request breaks a documented bound; `field` names it
  | "model_not_found"
  | "session_not_found"
  | "session_conflict" // the session is in use, or its id is taken
  | "store_unavailable" // what keeps the sessions does not answer, or its disk fails
  | "body_too_large"
  | "context_length_exceeded"
  | "invalid_api_key" // none was shown, or none that is known
  | "insufficient_scope" // the key is not for this
  | "rate_limited" // the key has used up what it may; `retryAfterSeconds` says when there is more
  | "origin_refused" // a web page that may not use the server
  | "deadline_exceeded" // the time of the request was over before its work was done
  | "idle_timeout" // the body of the request has stopped coming
  | "overloaded" // bounded queues are full; try again later
  | "shutting_down"
  | "engine_restarting" // the engine broke down and is being started again
  | "aborted" // the caller went away or asked to stop
  | "bundle_invalid" // a model bundle is missing, damaged, of an unknown version, or gives no numbers
  | "config_invalid"
  | "runtime_unavailable" // ONNX Runtime, or a device, could not be loaded or has too little memory
  | "engine_failed"; // a failure while running the model

export interface MblmErrorOptions {
  /** Wire name of the offending field, when one field is to blame. */
  readonly field?: string;
  readonly cause?: unknown;
  /** When another try makes sense, where that is known. */
  readonly retryAfterSeconds?: number;
}

/** The one error class of the project. */
export class MblmError extends Error {
  override readonly name = "MblmError";
  readonly field: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(
    readonly code: ErrorCode,
    message: string,
    options: MblmErrorOptions = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.field = options.field;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  /** Wraps anything thrown; keeps an MblmError as it is. */
  static from(thrown: unknown, code: ErrorCode = "engine_failed"): MblmError {
    if (thrown instanceof MblmError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new MblmError(code, message, { cause: thrown });
  }
}
