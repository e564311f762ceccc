import type { GenerationRequest } from "../../core/generation-request.js";
import { GREEDY } from "../../core/sampling-params.js";
import { MblmError } from "../../errors.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";

/** Of most models more than a patch; that every stage runs is tested where the model is loaded. */
const WARM_UP_BYTES = 64;

/**
 * Generates a little, so that the first request does not pay for what comes once, and a model that loads but does not run is
 * noticed before it is served.
 *
 * @throws MblmError what the engine fails with
 */
export async function warmUp(engine: EngineClient): Promise<void> {
  const numBytes = Math.min(WARM_UP_BYTES, Math.floor((engine.info.maxLength ?? Number.POSITIVE_INFINITY) / 2));
  const request: GenerationRequest = {
    id: "warm-up",
    prompt: new Uint16Array(numBytes).fill(0x20),
    sampling: GREEDY,
    stop: {
      maxNewBytes: numBytes,
      minNewBytes: 0,
      stopSequences: [],
      stopIds: [],
      ignoreEos: false,
      includeStop: false,
    },
    cacheSalt: "warm-up",
  };
  for await (const event of engine.submit(request, new AbortController().signal)) {
    if (event.type === "failed") throw new MblmError(event.code, event.message);
  }
}
