import type { Clock } from "../core/clock.js";
import type { GenerationEvent } from "../core/generation-event.js";
import { type Outcome, outcomeOf } from "../core/outcome.js";
import { MblmError } from "../errors.js";
import type { ModelMetrics } from "../metrics/model-metrics.js";
import type { AdmittedSequence } from "./admission.js";

/** The same events, counted and timed on their way; a sequence that its reader leaves early counts as aborted. */
export async function* observeSequence(
  events: AdmittedSequence,
  metrics: ModelMetrics,
  clock: Clock,
  arrivedAt: number,
): AsyncGenerator<GenerationEvent> {
  let saidAt: number | undefined;
  let hasEnded = false;
  let outcome: Outcome = "abort";
  try {
    for await (const event of events) {
      if (event.type === "bytes") {
        metrics.generated(event.ids.length);
        const now = clock.now();
        if (saidAt === undefined) metrics.firstByte(now - arrivedAt);
        else metrics.chunkGap(now - saidAt);
        saidAt = now;
      } else if (event.type === "finished") {
        hasEnded = true;
        metrics.finished(event.reason, event.usage, event.timings, clock.now() - arrivedAt);
      } else if (event.type === "failed") {
        hasEnded = true;
        metrics.unfinished(outcomeOf(event.code), clock.now() - arrivedAt);
      }
      yield event;
    }
  } catch (thrown) {
    outcome = outcomeOf(MblmError.from(thrown).code);
    throw thrown;
  } finally {
    if (!hasEnded) metrics.unfinished(outcome, clock.now() - arrivedAt);
  }
}
