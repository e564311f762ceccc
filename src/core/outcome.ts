import type { ErrorCode } from "../errors.js";

/** How work ended that was not done: its time was over; its client left or spoilt it, or it was not let in; or the server failed. */
export type Outcome = "timeout" | "abort" | "error";

const OUTCOMES: Readonly<Record<ErrorCode, Outcome>> = {
  deadline_exceeded: "timeout",
  idle_timeout: "timeout",
  aborted: "abort",
  invalid_request: "abort",
  context_length_exceeded: "abort",
  body_too_large: "abort",
  model_not_found: "abort",
  session_not_found: "abort",
  session_conflict: "abort",
  invalid_api_key: "abort",
  insufficient_scope: "abort",
  origin_refused: "abort",
  rate_limited: "abort",
  overloaded: "abort",
  store_unavailable: "error",
  shutting_down: "error",
  engine_restarting: "error",
  engine_failed: "error",
  bundle_invalid: "error",
  config_invalid: "error",
  runtime_unavailable: "error",
};

/** Only `error` is the server's to answer for. */
export function outcomeOf(code: ErrorCode): Outcome {
  return OUTCOMES[code];
}
