import type { KeyLimiter } from "../../access/key-limiter.js";
import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { engineWithSubmit } from "../engine-with-submit.js";

/** The engine, for one key: sequences and bytes are counted, and what is too much is refused before any work. */
export function metered(engine: EngineClient, limiter: KeyLimiter): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    const leave = limiter.enter();
    try {
      for await (const event of engine.submit(request, signal)) {
        if (event.type === "started") limiter.takeBytes(request.prompt.length);
        if (event.type === "bytes") limiter.takeBytes(event.ids.length);
        yield event;
      }
    } finally {
      leave();
    }
  }
  return engineWithSubmit(engine, submit);
}
