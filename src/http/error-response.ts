import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { type ErrorCode, MblmError } from "../errors.js";
import { tooLarge } from "../feeding/body-reader.js";

/** The wire form of every failure; all four keys are always there. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Status and OpenAI error type of each code. */
const STATUS: Readonly<Record<ErrorCode, readonly [status: number, type: string]>> = {
  invalid_request: [400, "invalid_request_error"],
  context_length_exceeded: [400, "invalid_request_error"],
  model_not_found: [404, "invalid_request_error"],
  body_too_large: [413, "invalid_request_error"],
  session_not_found: [404, "invalid_request_error"],
  session_conflict: [409, "conflict_error"],
  store_unavailable: [503, "service_unavailable"],
  invalid_api_key: [401, "authentication_error"],
  insufficient_scope: [403, "permission_error"],
  origin_refused: [403, "permission_error"],
  rate_limited: [429, "rate_limit_error"],
  deadline_exceeded: [408, "timeout_error"],
  idle_timeout: [408, "timeout_error"],
  overloaded: [429, "rate_limit_error"],
  aborted: [499, "request_cancelled"],
  shutting_down: [503, "service_unavailable"],
  engine_restarting: [503, "service_unavailable"],
  engine_failed: [500, "server_error"],
  bundle_invalid: [500, "server_error"],
  config_invalid: [500, "server_error"],
  runtime_unavailable: [500, "server_error"],
};
const RETRY_AFTER_SECONDS = 1;

export function statusOf(code: ErrorCode): number {
  return STATUS[code][0];
}

export function errorBody(code: ErrorCode, message: string, param: string | null = null): ErrorBody {
  return { error: { message, type: STATUS[code][1], param, code } };
}

/** Answers with the error's status; overload and shutdown tell the client when to try again. */
export function sendError(reply: FastifyReply, error: MblmError): FastifyReply {
  const status = statusOf(error.code);
  if (status === 429 || status === 503)
    void reply.header("retry-after", error.retryAfterSeconds ?? RETRY_AFTER_SECONDS);
  // Clients try again after a 408 by themselves: it would take as long, and a stream cannot be sent twice.
  if (status === 408) void reply.header("x-should-retry", "false");
  return reply.code(status).send(errorBody(error.code, error.message, error.field ?? null));
}

/** What was thrown, as an error of ours where we have the same. */
export function toOwnError(thrown: FastifyError | MblmError, request: FastifyRequest): FastifyError | MblmError {
  const isTooLarge = (thrown as FastifyError).code === "FST_ERR_CTP_BODY_TOO_LARGE";
  return isTooLarge ? tooLarge(request.routeOptions.bodyLimit) : thrown;
}

/** Fastify's own failures (malformed JSON) in the same shape. */
export function handleError(thrown: FastifyError | MblmError, request: FastifyRequest, reply: FastifyReply): void {
  // Fastify would close the connection while the client may be sending; what is left of the body is read and forgotten instead.
  reply.removeHeader("connection");
  if (thrown instanceof MblmError) {
    if (statusOf(thrown.code) >= 500) request.log.error({ err: thrown }, "request failed");
    void sendError(reply, thrown);
    return;
  }
  const status = thrown.statusCode ?? 500;
  if (status >= 500) request.log.error({ err: thrown }, "request failed");
  if (status < 500) {
    void reply.code(status).send(errorBody("invalid_request", thrown.message));
  } else {
    void reply.code(500).send(errorBody("engine_failed", "Internal error."));
  }
}
