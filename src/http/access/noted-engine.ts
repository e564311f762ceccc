import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { engineWithSubmit } from "../engine-with-submit.js";

/** The engine, for a request that is to know whether it has had any work done: that a place was taken and given back is none. */
export function noted(engine: EngineClient, onWork: () => void): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    for await (const event of engine.submit(request, signal)) {
      if (event.type !== "started") onWork();
      yield event;
    }
  }
  return engineWithSubmit(engine, submit);
}
