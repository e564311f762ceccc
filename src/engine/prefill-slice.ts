import type { Clock } from "../core/clock.js";
import type { ModelRunner } from "./model-runner-interface.js";
import { PrefillPace } from "./prefill-pace.js";
import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";

/** Spends a bounded slice of time on the prompts of sequences that do not decode yet, one call each in round robin. */
export class PrefillSlice {
  readonly #pace = new PrefillPace();

  constructor(
    private readonly runner: ModelRunner,
    private readonly scheduler: Scheduler,
    private readonly clock: Clock,
    private readonly onFailure: (sequence: Sequence, thrown: unknown) => void,
  ) {}

  /** @param turnSeconds duration of the last decode turn; undefined when nobody decodes */
  async run(turnSeconds: number | undefined): Promise<void> {
    const deadline = this.clock.now() + this.#pace.startSlice(turnSeconds);
    do {
      const sequence = this.scheduler.takePrefilling();
      if (sequence === undefined) return;
      await this.#advance(sequence);
    } while (this.clock.now() < deadline);
  }

  async #advance(sequence: Sequence): Promise<void> {
    const slot = this.scheduler.slots.slotOf(sequence)!;
    const startedAt = this.clock.now();
    try {
      const numTaken = await this.runner.prefill(slot, sequence.request.prompt, this.#pace.maxSteps);
      if (numTaken === 0) {
        this.scheduler.markReady(sequence);
        return;
      }
      this.#pace.observeCall(this.clock.now() - startedAt);
      this.scheduler.returnToPrefill(sequence);
    } catch (thrown) {
      this.onFailure(sequence, thrown);
    }
  }
}
