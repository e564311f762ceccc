import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { ModelIdentity } from "../../core/model-info.js";
import { misfit, type SequenceState } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import type { AcquiredSession } from "../../session/session-store.js";
import type { AdmittedSequence } from "../admission.js";

/** @throws MblmError `invalid_request` when the session is of another model or bundle */
export function requireFit(state: SequenceState | undefined, info: ModelIdentity): void {
  const problem = state && misfit(state, info);
  if (problem === undefined) return;
  throw new MblmError("invalid_request", `session_id: the session ${problem}`, { field: "session_id" });
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
