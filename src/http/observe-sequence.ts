import type { Clock } from "../core/clock.js";
import type { GenerationEvent } from "../core/generation-event.js";
import type { ServerMetrics } from "../metrics/server-metrics.js";
import type { AdmittedSequence } from "./admission.js";

/** The same events, counted and timed on their way; a sequence that its reader leaves early counts as aborted. */
export async function* observeSequence(
  events: AdmittedSequence,
  metrics: ServerMetrics,
  clock: Clock,
  arrivedAt: number,
): AsyncGenerator<GenerationEvent> {
  let hasByte = false;
  let hasEnded = false;
  try {
    for await (const event of events) {
      if (event.type === "bytes") {
        metrics.generated(event.ids.length);
        if (!hasByte) metrics.firstByte(clock.now() - arrivedAt);
        hasByte = true;
      } else if (event.type === "finished") {
        hasEnded = true;
        metrics.finished(event.reason, event.usage, event.timings, clock.now() - arrivedAt);
      } else if (event.type === "failed") {
        hasEnded = true;
        metrics.failed(clock.now() - arrivedAt);
      }
      yield event;
    }
  } finally {
    if (!hasEnded) metrics.abandoned(clock.now() - arrivedAt);
  }
}
