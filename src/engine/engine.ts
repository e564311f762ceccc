import { checkRequest } from "../core/check-request.js";
import type { Clock } from "../core/clock.js";
import type { EngineStats } from "../core/engine-stats.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { Sampler } from "../sampling/sampler.js";
import { DecodeTurn, type Turn, type TurnListener } from "./decode-turn.js";
import { EventOutbox, type EventSink } from "./event-outbox.js";
import { isPatchRunner, type ModelRunner, type PatchRunner } from "./model-runner-interface.js";
import { PatchTurn } from "./patch-turn.js";
import { PrefillSlice } from "./prefill-slice.js";
import { PrefixCache } from "./prefix-cache.js";
import { PrefixRecorder } from "./prefix-recorder.js";
import { requireUsable } from "./resume-check.js";
import { Scheduler } from "./scheduler.js";
import { Sequence } from "./sequence.js";
import type { WaitingLimits } from "./waiting-queue.js";

export interface EngineLimits extends WaitingLimits {
  /** Memory for cached prefix states; 0 switches the cache off. */
  readonly prefixCacheBytes: number;
}

/**
 * Runs many generations at once by continuous batching: sequences join and leave between turns, and nothing of what one
 * of them says depends on the others. Events go to the sink; every sequence gets exactly one terminal event.
 *
 * `submit` and `abort` may be called at any time, also while a step is under way. `step` must not be called again
 * before it has resolved.
 */
export class Engine {
  readonly #scheduler: Scheduler;
  readonly #prefill: PrefillSlice;
  readonly #turn: Turn;
  readonly #sampler: Sampler;
  readonly #cache: PrefixCache;
  readonly #recorder: PrefixRecorder;
  readonly #outbox: EventOutbox;
  readonly #sequences = new Map<number, Sequence>();
  readonly #aborting = new Set<number>();
  #turnSeconds = 0;
  #promptBytesTotal = 0;
  /** By sequences that have ended. */
  #generatedBytesTotal = 0;

  constructor(
    private readonly runner: ModelRunner | PatchRunner,
    private readonly clock: Clock,
    limits: EngineLimits,
    sink: EventSink,
  ) {
    const fail = (sequence: Sequence, thrown: unknown): void => this.#fail(sequence, MblmError.from(thrown));
    const listener: TurnListener = {
      commit: (sequence) => this.#commit(sequence),
      fail,
      flush: () => this.#outbox.flush(),
    };
    this.#outbox = new EventOutbox(sink);
    this.#sampler = new Sampler(runner.info.vocabularySize);
    this.#cache = new PrefixCache(limits.prefixCacheBytes);
    this.#recorder = new PrefixRecorder(runner, this.#cache);
    this.#scheduler = new Scheduler(runner, limits, this.#cache);
    this.#prefill = new PrefillSlice(runner, this.#scheduler, this.#recorder, clock, listener);
    const { slots } = this.#scheduler;
    this.#turn = isPatchRunner(runner)
      ? new PatchTurn(runner, slots, listener)
      : new DecodeTurn(runner, slots, this.#sampler, clock, listener);
  }

  get info(): ModelInfo {
    return this.runner.info;
  }

  /** Whether `step` has anything to do. */
  get hasWork(): boolean {
    return this.#scheduler.hasWork || this.#aborting.size > 0;
  }

  /**
   * Admits a request: it gets its `started` event and waits for a slot.
   *
   * @param key names the sequence in events and `abort`; not in use by another open one
   * @throws MblmError `invalid_request`, `context_length_exceeded` or `overloaded`; nothing has happened then
   */
  submit(key: number, request: GenerationRequest): void {
    checkRequest(request, this.info);
    if (request.resume !== undefined) requireUsable(request.resume, this.runner);
    const sequence = new Sequence(key, request, this.info, this.clock);
    const isComplete = sequence.outputEnd !== undefined; // nothing to generate, nothing to score
    if (!isComplete) this.#scheduler.enqueue(sequence);
    this.#sequences.set(key, sequence);
    this.#outbox.push(key, { type: "started", promptBytes: request.prompt.length });
    if (isComplete) this.#commit(sequence);
    this.#outbox.flush();
  }

  /** Ends a sequence before the next step; unknown and ended keys are ignored. */
  abort(key: number): void {
    if (this.#sequences.has(key)) this.#aborting.add(key);
  }

  /** One turn: schedule, execute, commit. */
  async step(): Promise<void> {
    this.#applyAborts();
    this.#scheduler.admit();
    await this.#prefill.run(this.#scheduler.hasDecoding ? this.#turnSeconds : undefined);
    this.#start(this.#scheduler.joinReady());
    if (this.#scheduler.slots.numRows === 0) return;
    const startedAt = this.clock.now();
    await this.#turn.run();
    this.#turnSeconds = this.clock.now() - startedAt;
  }

  /** Ends every open sequence with `failed`. Not while a step is under way. */
  failAll(error: MblmError): void {
    for (const sequence of [...this.#sequences.values()]) this.#fail(sequence, error);
    this.#outbox.flush();
  }

  stats(): EngineStats {
    let generatedBytes = this.#generatedBytesTotal;
    for (const sequence of this.#sequences.values()) generatedBytes += sequence.numGenerated;
    return {
      numSlots: this.runner.numSlots,
      numRunning: this.#scheduler.slots.numOccupied,
      numWaiting: this.#scheduler.numWaiting,
      promptBytesTotal: this.#promptBytesTotal,
      generatedBytesTotal: generatedBytes,
      prefixCache: this.#cache.stats(),
      stepSeconds: this.runner.stepSeconds,
      batchSize: this.#turn.batchSize.toCounts(),
      stateBytes: this.runner.stateBytesPerSlot * this.runner.numSlots,
      device: this.runner.deviceStats,
    };
  }

  #applyAborts(): void {
    for (const key of this.#aborting) {
      const sequence = this.#sequences.get(key);
      if (sequence === undefined) continue;
      sequence.abort();
      this.#commit(sequence);
    }
    this.#aborting.clear();
    this.#outbox.flush();
  }

  #start(joined: readonly Sequence[]): void {
    for (const sequence of joined) {
      this.#promptBytesTotal += sequence.request.prompt.length;
      sequence.endIfNothingIsLeft();
      if (sequence.outputEnd !== undefined) this.#commit(sequence);
      else if (sequence.input.length === 0) this.#generateFirst(sequence);
    }
    this.#outbox.flush();
  }

  /** Without any input, the first byte is chosen before any is fed: from the state's logits, or a constant of the model. */
  #generateFirst(sequence: Sequence): void {
    try {
      sequence.generate(sequence.request.resume?.logits ?? this.runner.initialLogits, 0, this.#sampler);
      this.#commit(sequence);
    } catch (thrown) {
      this.#fail(sequence, MblmError.from(thrown));
    }
  }

  /** Hands out what the sequence has, and lets go of it if it has ended. */
  #commit(sequence: Sequence): void {
    const scores = sequence.takeScores();
    if (scores !== undefined) this.#outbox.push(sequence.key, scores);
    const output = sequence.takeOutput();
    if (output !== undefined) this.#outbox.push(sequence.key, output);
    if (sequence.outputEnd === undefined) {
      if (sequence.isCheckpointDue) this.#checkpoint(sequence);
      return;
    }
    const state = this.#lastState(sequence);
    this.#remove(sequence);
    this.#outbox.push(sequence.key, sequence.finish(state));
  }

  #checkpoint(sequence: Sequence): void {
    const slot = this.#scheduler.slots.slotOf(sequence)!;
    this.#outbox.push(sequence.key, sequence.checkpoint(this.#stateOf(sequence, slot)));
  }

  /** Keeps the state of an ended sequence for those that go on from it, and returns it if the request asked for it. */
  #lastState(sequence: Sequence): SequenceState | undefined {
    const slot = this.#scheduler.slots.slotOf(sequence);
    if (slot === undefined) return undefined;
    this.#recorder.record(sequence, slot);
    return sequence.request.returnState && sequence.length > 0 ? this.#stateOf(sequence, slot) : undefined;
  }

  /**
   * The state of the last border that has an id behind it: what comes next is chosen from the logits after an id, which are
   * no part of a snapshot. So a sequence that ended by an id that is no part of it, right at a border, is taken at the
   * border before. With one stage there is no going back, and the logits are kept (`SequenceState.logits`).
   */
  #stateOf(sequence: Sequence, slot: number): SequenceState {
    const numFed = this.runner.length(slot);
    const length = this.info.numStages === 1 ? numFed : Math.min(numFed, sequence.length - 1);
    return sequence.stateFrom(this.runner.borderSnapshot(slot, length));
  }

  #fail(sequence: Sequence, error: MblmError): void {
    this.#remove(sequence);
    this.#outbox.push(sequence.key, { type: "failed", code: error.code, message: error.message });
  }

  #remove(sequence: Sequence): void {
    this.#scheduler.remove(sequence);
    this.#sequences.delete(sequence.key);
    this.#generatedBytesTotal += sequence.numGenerated;
  }
}
