import type { SequenceRunner } from "./model-runner-interface.js";
import { PrefillGroups } from "./prefill-groups.js";
import { MIN_CACHED_LENGTH, type PrefixCache } from "./prefix-cache.js";
import type { Sequence } from "./sequence.js";
import { SlotTable } from "./slot-table.js";
import { type WaitingLimits, WaitingQueue } from "./waiting-queue.js";

/** Which sequence is where: waiting → prefilling → ready to join → decoding row. */
export class Scheduler {
  readonly slots: SlotTable;
  readonly #runner: SequenceRunner;
  readonly #cache: PrefixCache;
  readonly #waiting: WaitingQueue;
  readonly #groups = new PrefillGroups();
  /** Round robin: the first is advanced next. */
  #prefilling: Sequence[] = [];
  /** Filled and emptied within one engine step. */
  #ready: Sequence[] = [];

  constructor(runner: SequenceRunner, limits: WaitingLimits, cache: PrefixCache) {
    this.slots = new SlotTable(runner);
    this.#runner = runner;
    this.#cache = cache;
    this.#waiting = new WaitingQueue(limits);
  }

  get numWaiting(): number {
    return this.#waiting.length;
  }

  get hasWork(): boolean {
    return this.#waiting.length > 0 || this.slots.numOccupied > 0;
  }

  /** Whether a sequence decodes or is about to. */
  get hasDecoding(): boolean {
    return this.slots.numRows > 0 || this.#ready.length > 0;
  }

  /** @throws MblmError `overloaded`, or `invalid_request` when its group has another prompt; nothing has happened then */
  enqueue(sequence: Sequence): void {
    this.#groups.requireSamePrompt(sequence);
    this.#waiting.push(sequence, this.slots.numFree);
    this.#groups.join(sequence);
  }

  /** Closes the holes among the rows and gives free slots to those that wait longest. */
  admit(): void {
    this.slots.compact();
    while (this.slots.numFree > 0) {
      const sequence = this.#waiting.shift();
      if (sequence === undefined) return;
      this.slots.allocate(sequence);
      sequence.enterSlot();
      this.#place(sequence);
    }
  }

  /** Decides where the prompt of a sequence with a fresh slot comes from. */
  #place(sequence: Sequence): void {
    const { input } = sequence;
    const { resume } = sequence.request;
    const slot = this.slots.slotOf(sequence)!;
    if (resume !== undefined) this.#runner.restore(slot, resume.snapshot);
    const firstLogits = resume === undefined ? this.#runner.scoringLogits : resume.logits;
    if (firstLogits !== undefined) sequence.scorePrompt(sequence.base, firstLogits, 0);
    // A prompt that fits into the first patch is the local stage's alone.
    if (input.length <= this.#runner.patchLength) {
      this.#ready.push(sequence);
      return;
    }
    const turn = this.#groups.enter(sequence);
    if ("length" in turn) {
      this.#runner.restore(slot, turn);
      this.#ready.push(sequence);
    } else if (turn.kind === "lead") {
      this.#useCache(sequence);
      this.#prefilling.push(sequence);
    }
  }

  /** Starts from the longest cached prefix. A prompt that is scored is computed whole: the cache has no scores. */
  #useCache(sequence: Sequence): void {
    const { prompt, resume, cacheSalt = "" } = sequence.request;
    if (!this.#cache.isEnabled || resume !== undefined || sequence.scorer !== undefined) return;
    const { snapshot, numShared } = this.#cache.find(cacheSalt, prompt);
    if (snapshot !== undefined) {
      this.#runner.restore(this.slots.slotOf(sequence)!, snapshot);
      sequence.cachedLength = snapshot.length;
    }
    const branch = numShared - (numShared % this.#runner.patchLength);
    if (branch - sequence.cachedLength >= MIN_CACHED_LENGTH) sequence.cutAt = branch;
  }

  /** Takes the sequence whose turn it is to be prefilled; put it back with `returnToPrefill` or `markReady`. */
  takePrefilling(): Sequence | undefined {
    return this.#prefilling.shift();
  }

  returnToPrefill(sequence: Sequence): void {
    this.#prefilling.push(sequence);
  }

  /** The sequence's prompt is computed up to its last patch border; so is that of the rest of its group. */
  markReady(sequence: Sequence): void {
    this.#ready.push(sequence);
    const shared = this.#groups.finishPrompt(sequence, () => this.#runner.borderSnapshot(this.slots.slotOf(sequence)!));
    if (shared === undefined) return;
    for (const follower of shared.followers) {
      this.#runner.restore(this.slots.slotOf(follower)!, shared.snapshot);
      this.#ready.push(follower);
    }
  }

  /** Makes every ready sequence a row and returns them. */
  joinReady(): readonly Sequence[] {
    const joining = this.#ready;
    this.#ready = [];
    for (const sequence of joining) this.slots.join(sequence);
    return joining;
  }

  /** Forgets a sequence, wherever it is. */
  remove(sequence: Sequence): void {
    const successor = this.#groups.leave(sequence);
    if (successor !== undefined) {
      this.#useCache(successor); // where one that was aborted has left what it computed
      this.#prefilling.push(successor);
    }
    if (this.#waiting.remove(sequence)) return;
    this.slots.release(sequence);
    this.#prefilling = this.#prefilling.filter((other) => other !== sequence);
    this.#ready = this.#ready.filter((other) => other !== sequence);
  }
}
