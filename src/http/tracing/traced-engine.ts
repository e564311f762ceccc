import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import { MblmError } from "../../errors.js";
import type { RequestTrace } from "../../tracing/request-trace.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { engineWithSubmit } from "../engine-with-submit.js";

/** The engine, for one traced request: every sequence has its span. */
export function traced(engine: EngineClient, trace: RequestTrace): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    const sequence = trace.beginSequence(request, engine.info.id);
    try {
      for await (const event of engine.submit(request, signal)) {
        sequence?.take(event);
        yield event;
      }
    } catch (thrown) {
      sequence?.fail(MblmError.from(thrown).code);
      throw thrown;
    } finally {
      sequence?.end();
    }
  }
  return engineWithSubmit(engine, submit);
}
