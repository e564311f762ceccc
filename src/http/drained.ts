import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { reasonOf } from "../core/stopping.js";

/**
 * Waits until the client has taken what was written to it. One that takes nothing for so long is cut off, as if it had gone: what it asked
 * for would hold a slot for nobody, and fill memory.
 *
 * @param idleSeconds 0: it may take any time
 * @param signal aborted when the client has gone
 * @throws MblmError the reason of `signal`
 */
export async function drained(response: ServerResponse, idleSeconds: number, signal: AbortSignal): Promise<void> {
  const timer = idleSeconds > 0 ? setTimeout(() => response.destroy(), idleSeconds * 1000) : undefined;
  try {
    await once(response, "drain", { signal }).catch((thrown: unknown) => {
      throw signal.aborted ? reasonOf(signal) : thrown;
    });
  } finally {
    clearTimeout(timer);
  }
}
