import type { Clock } from "../core/clock.js";
import type { SequenceRunner } from "./model-runner-interface.js";
import { PrefillPace } from "./prefill-pace.js";
import type { PrefixRecorder } from "./prefix-recorder.js";
import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";

/** What a slice tells the engine. */
export interface PrefillListener {
  /** The sequence has scores to hand out, or has ended. */
  commit(sequence: Sequence): void;
  fail(sequence: Sequence, thrown: unknown): void;
}

/** Spends a bounded slice of time on the prompts of sequences that do not decode yet, one call each in round robin. */
export class PrefillSlice {
  readonly #pace: PrefillPace;
  /** A scoring call of as many steps takes longer. */
  readonly #scoringPace: PrefillPace;

  constructor(
    private readonly runner: SequenceRunner,
    private readonly scheduler: Scheduler,
    private readonly recorder: PrefixRecorder,
    private readonly clock: Clock,
    private readonly listener: PrefillListener,
  ) {
    this.#pace = new PrefillPace(runner.maxPrefillSteps);
    this.#scoringPace = new PrefillPace(runner.maxPrefillSteps);
  }

  /** @param turnSeconds duration of the last decode turn; undefined when nobody decodes */
  async run(turnSeconds: number | undefined): Promise<void> {
    this.#scoringPace.startSlice(turnSeconds);
    const deadline = this.clock.now() + this.#pace.startSlice(turnSeconds);
    do {
      const sequence = this.scheduler.takePrefilling();
      if (sequence === undefined) return;
      try {
        await this.#advance(sequence);
      } catch (thrown) {
        this.listener.fail(sequence, thrown);
      }
    } while (this.clock.now() < deadline);
  }

  async #advance(sequence: Sequence): Promise<void> {
    const slot = this.scheduler.slots.slotOf(sequence)!;
    const { input } = sequence;
    const fed = this.runner.length(slot) - sequence.base;
    const end = sequence.cutAt === undefined ? input.length : sequence.cutAt + 1; // one id stays unfed
    const numTaken = await this.#feed(sequence, slot, input.subarray(fed, end));
    if (numTaken > 0) {
      this.scheduler.returnToPrefill(sequence);
      if (sequence.scorer === undefined) return;
      sequence.endIfNothingIsLeft();
      this.listener.commit(sequence);
      return;
    }
    this.recorder.record(sequence, slot);
    if (sequence.cutAt === undefined) {
      this.scheduler.markReady(sequence);
    } else {
      sequence.cutAt = undefined;
      this.scheduler.returnToPrefill(sequence);
    }
  }

  /** One call; returns the ids taken. */
  async #feed(sequence: Sequence, slot: number, ids: Uint16Array): Promise<number> {
    const pace = sequence.scorer === undefined ? this.#pace : this.#scoringPace;
    const startedAt = this.clock.now();
    const numTaken = await this.#call(sequence, slot, ids, pace.maxSteps);
    if (numTaken === 0) return 0;
    pace.observeCall(this.clock.now() - startedAt);
    sequence.numPrefillCalls++;
    return numTaken;
  }

  #call(sequence: Sequence, slot: number, ids: Uint16Array, maxSteps: number): number | Promise<number> {
    if (sequence.scorer === undefined) return this.runner.prefill(slot, ids, maxSteps);
    const length = this.runner.length(slot);
    return this.runner.score(slot, ids, maxSteps, (index, logits, offset) =>
      sequence.scorePrompt(length + index + 1, logits, offset),
    );
  }
}
