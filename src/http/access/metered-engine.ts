import type { KeyLimiter } from "../../access/key-limiter.js";
import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { engineWithSubmit } from "../engine-with-submit.js";

/** The engine, for one key: sequences and bytes are counted; what is too much is refused before any work, or waits for its turn. */
export function metered(engine: EngineClient, limiter: KeyLimiter): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    if (request.group !== undefined) limiter.requirePlaces(request.group.size);
    const leave = request.waitsForRoom ? await limiter.enterInTurn(signal) : limiter.enter();
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
