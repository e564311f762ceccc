import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { SequenceState } from "../../core/state-snapshot.js";
import type { AcquiredSession } from "../../session/session-store.js";
import type { AdmittedSequence } from "../admission.js";

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
