import type { GenerationEvent } from "../../core/generation-event.js";
import { FEED_ONLY, type GenerationRequest } from "../../core/generation-request.js";
import type { ModelIdentity } from "../../core/model-info.js";
import { misfit, type SequenceState } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import type { AcquiredSession } from "../../session/session-store.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import type { AdmittedSequence } from "../admission.js";

/** @throws MblmError `invalid_request` when the session is of another model or bundle */
export function requireFit(state: SequenceState | undefined, info: ModelIdentity): void {
  const problem = state && misfit(state, info);
  if (problem === undefined) return;
  throw new MblmError("invalid_request", `session_id: the session ${problem}`, { field: "session_id" });
}

/**
 * Asks the engine for nothing behind an uploaded state: it takes it, or says why no request can go on from it.
 *
 * @param id names the request in the engine
 * @throws MblmError `invalid_request` when the arrays are not those of a state of this model; or what any request may fail with
 */
export async function requireUsable(
  state: SequenceState,
  engine: EngineClient,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const events = engine.submit({ id, prompt: new Uint16Array(), ...FEED_ONLY, resume: state }, signal);
    for await (const event of events) if (event.type === "failed") throw new MblmError(event.code, event.message);
  } catch (thrown) {
    const { code, message } = MblmError.from(thrown);
    if (code !== "invalid_request" && code !== "context_length_exceeded") throw thrown;
    const problem = `snapshot: ${engine.info.id} cannot go on from it: ${message}`;
    throw new MblmError("invalid_request", problem, { field: "snapshot", cause: thrown });
  }
}

/** The request, going on from a session's state. */
export function resumed(request: GenerationRequest, state: SequenceState | undefined): GenerationRequest {
  return { ...request, returnState: true, ...(state === undefined ? {} : { resume: state }) };
}

/** The same events; the end is passed on only when the new state is kept, so that who hears of it can rely on it. */
export async function* committed(
  events: AdmittedSequence,
  commit: AcquiredSession["commit"],
): AsyncGenerator<GenerationEvent> {
  for await (const event of events) {
    if (event.type === "finished" && event.reason !== "abort") await commit({ state: event.state });
    yield event;
  }
}
