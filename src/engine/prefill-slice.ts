import type { Clock } from "../core/clock.js";
import type { SequenceRunner } from "./model-runner-interface.js";
import { PrefillPace } from "./prefill-pace.js";
import type { PrefixRecorder } from "./prefix-recorder.js";
import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";
import { SharedTime } from "./shared-time.js";

/** What a slice tells the engine. */
export interface PrefillListener {
  /** The sequence has scores to hand out, or has ended. */
  commit(sequence: Sequence): void;
  fail(sequence: Sequence, thrown: unknown): void;
}

/** A prompt that takes longer than a few turns: streams must not be slow as long as it is fed. */
const LONG_INPUT = 16_384;
/** Turns that one call of a long prompt may take: fewer would be inefficient, more would be noticed. */
const LONG_CALL_TURNS = 1.5;

/**
 * Spends a bounded slice of time on the prompts of sequences that do not decode yet, one call each in round robin. Beside
 * running streams, short prompts have as much time as a turn takes, because they are done soon; long ones have a fixed share.
 */
export class PrefillSlice {
  readonly #paces: Readonly<Record<"short" | "long", Readonly<Record<"feed" | "score", PrefillPace>>>>;
  readonly #sharedTime = new SharedTime();

  constructor(
    private readonly runner: SequenceRunner,
    private readonly scheduler: Scheduler,
    private readonly recorder: PrefixRecorder,
    private readonly clock: Clock,
    private readonly listener: PrefillListener,
  ) {
    // A scoring call of as many steps takes longer.
    const paces = (leastFill: number) => ({
      feed: new PrefillPace(runner.maxPrefillSteps, leastFill),
      score: new PrefillPace(runner.maxPrefillSteps, leastFill),
    });
    this.#paces = { short: paces(0.25), long: paces(0.5) };
  }

  /** @param turnSeconds duration of the last decode turn; undefined when nobody decodes */
  async run(turnSeconds: number | undefined): Promise<void> {
    const { short, long } = this.#paces;
    const longCallSeconds = turnSeconds && LONG_CALL_TURNS * turnSeconds;
    for (const pace of [long.feed, long.score]) pace.startSlice(longCallSeconds);
    short.score.startSlice(turnSeconds);
    const deadline = this.clock.now() + short.feed.startSlice(turnSeconds);
    this.#sharedTime.earn(turnSeconds);
    const putOff: Sequence[] = [];
    do {
      const sequence = this.scheduler.takePrefilling();
      if (sequence === undefined) break;
      if (isLong(sequence) && !this.#sharedTime.isLeft) {
        putOff.push(sequence);
        continue;
      }
      try {
        await this.#advance(sequence);
      } catch (thrown) {
        this.listener.fail(sequence, thrown);
      }
    } while (this.clock.now() < deadline);
    for (const sequence of putOff) this.scheduler.returnToPrefill(sequence);
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
    const { feed, score } = this.#paces[isLong(sequence) ? "long" : "short"];
    const pace = sequence.scorer === undefined ? feed : score;
    const startedAt = this.clock.now();
    const numTaken = await this.#call(sequence, slot, ids, pace.maxSteps);
    if (numTaken === 0) return 0;
    const seconds = this.clock.now() - startedAt;
    pace.observeCall(seconds);
    if (isLong(sequence)) this.#sharedTime.spend(seconds);
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

function isLong({ input, request }: Sequence): boolean {
  return request.isPartOfLong === true || input.length > LONG_INPUT;
}
