import type { GenerationEvent } from "../../src/core/generation-event.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import type { EngineClient } from "../../src/worker/engine-client-interface.js";

export const never: AbortSignal = new AbortController().signal;

/** All events of one request. */
export async function collect(
  client: EngineClient,
  request: GenerationRequest,
  signal: AbortSignal = never,
): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of client.submit(request, signal)) events.push(event);
  return events;
}

export function idsOf(events: readonly GenerationEvent[]): number[] {
  return events.flatMap((event) => (event.type === "bytes" ? [...event.ids] : []));
}

/** Waits until nothing runs or waits any more. */
export async function untilIdle(client: EngineClient): Promise<void> {
  for (;;) {
    const { numRunning, numWaiting } = await client.stats();
    if (numRunning === 0 && numWaiting === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
