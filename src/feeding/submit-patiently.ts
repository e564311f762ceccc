import { setTimeout } from "node:timers/promises";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { MblmError } from "../errors.js";
import type { EngineClient } from "../worker/engine-client-interface.js";

const RETRY_MILLISECONDS = 100;

/** Work that has begun is not refused half-way: when the queue is full, what comes later waits. */
export async function* submitPatiently(
  engine: EngineClient,
  request: GenerationRequest,
  mayBeRefused: boolean,
  signal: AbortSignal,
): AsyncGenerator<GenerationEvent> {
  for (;;) {
    try {
      yield* engine.submit(request, signal);
      return;
    } catch (thrown) {
      const isBusy = thrown instanceof MblmError && (thrown.code === "overloaded" || thrown.code === "rate_limited");
      if (mayBeRefused || !isBusy) throw thrown;
      await setTimeout(RETRY_MILLISECONDS, undefined, { signal });
    }
  }
}
