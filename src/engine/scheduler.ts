import type { ModelRunner } from "./model-runner-interface.js";
import type { Sequence } from "./sequence.js";
import { SlotTable } from "./slot-table.js";
import { type WaitingLimits, WaitingQueue } from "./waiting-queue.js";

/** Which sequence is where: waiting → prefilling → ready to join → decoding row. */
export class Scheduler {
  readonly slots: SlotTable;
  readonly #waiting: WaitingQueue;
  readonly #patchLength: number;
  /** Round robin: the first is advanced next. */
  #prefilling: Sequence[] = [];
  /** Filled and emptied within one engine step. */
  #ready: Sequence[] = [];

  constructor(runner: ModelRunner, limits: WaitingLimits) {
    this.slots = new SlotTable(runner);
    this.#waiting = new WaitingQueue(limits);
    this.#patchLength = runner.patchLength;
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

  /** @throws MblmError `overloaded` */
  enqueue(sequence: Sequence): void {
    this.#waiting.push(sequence, this.slots.numFree);
  }

  /** Closes the holes among the rows and gives free slots to those that wait longest. */
  admit(): void {
    this.slots.compact();
    while (this.slots.numFree > 0) {
      const sequence = this.#waiting.shift();
      if (sequence === undefined) return;
      this.slots.allocate(sequence);
      sequence.enterSlot();
      // A prompt that fits into the first patch is the local stage's alone.
      const needsPrefill = sequence.request.prompt.length > this.#patchLength;
      (needsPrefill ? this.#prefilling : this.#ready).push(sequence);
    }
  }

  /** Takes the sequence whose turn it is to be prefilled; put it back with `returnToPrefill` or `markReady`. */
  takePrefilling(): Sequence | undefined {
    return this.#prefilling.shift();
  }

  returnToPrefill(sequence: Sequence): void {
    this.#prefilling.push(sequence);
  }

  markReady(sequence: Sequence): void {
    this.#ready.push(sequence);
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
    if (this.#waiting.remove(sequence)) return;
    this.slots.release(sequence);
    this.#prefilling = this.#prefilling.filter((other) => other !== sequence);
  }
}
