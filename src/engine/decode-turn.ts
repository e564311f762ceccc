import type { Clock } from "../core/clock.js";
import { Histogram } from "../core/histogram.js";
import type { Sampler } from "../sampling/sampler.js";
import type { ModelRunner } from "./model-runner-interface.js";
import type { Sequence } from "./sequence.js";
import type { SlotTable } from "./slot-table.js";

export const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const MIN_TURN_LENGTH = 8;
const MAX_TURN_LENGTH = 32;
/** Within a turn, output never waits longer than this (plus one step). */
const MAX_OUTPUT_DELAY_SECONDS = 0.02;

/**
 * Bytes per turn: whole patches, so that rows which start a turn at a patch border all end it at one and the next stage
 * runs once for all of them. Patches longer than the maximum are cut; their rows run the next stage when each is due.
 */
export function turnLength(patchLength: number): number {
  if (patchLength > MAX_TURN_LENGTH) return MAX_TURN_LENGTH;
  return patchLength * Math.ceil(MIN_TURN_LENGTH / patchLength);
}

/** One round of decoding for all rows. */
export interface Turn {
  run(): Promise<void>;
  /** Sequences that a step served. */
  readonly batchSize: Histogram;
}

/** What a turn tells the engine. */
export interface TurnListener {
  /** The sequence has output to hand out, or has ended. */
  commit(sequence: Sequence): void;
  fail(sequence: Sequence, thrown: unknown): void;
  /** Sends what was handed out. */
  flush(): void;
}

/** Feeds up to one turn of bytes to every row, choosing a byte wherever the prompt is used up. */
export class DecodeTurn implements Turn {
  readonly #numSteps: number;
  readonly #ids: Uint16Array; // S
  readonly #active: Uint8Array; // S
  readonly batchSize = new Histogram(BATCH_BOUNDS);

  constructor(
    private readonly runner: ModelRunner,
    private readonly slots: SlotTable,
    private readonly sampler: Sampler,
    private readonly clock: Clock,
    private readonly listener: TurnListener,
  ) {
    this.#numSteps = turnLength(runner.patchLength);
    this.#ids = new Uint16Array(runner.numSlots);
    this.#active = new Uint8Array(runner.numSlots);
  }

  async run(): Promise<void> {
    let committedAt = this.clock.now();
    for (let step = 0; step < this.#numSteps && this.slots.numRows > 0; step++) {
      const numRows = this.slots.numRows;
      const logits = await this.#feed(numRows);
      if (logits !== undefined) for (let row = 0; row < numRows; row++) this.#choose(row, logits);
      const now = this.clock.now();
      if (now - committedAt > MAX_OUTPUT_DELAY_SECONDS) {
        this.#commitAll();
        committedAt = now;
      }
      this.listener.flush();
    }
    this.#commitAll();
    this.listener.flush();
  }

  /** One step of the local stage for all rows; a failure ends every sequence it was made for. */
  async #feed(numRows: number): Promise<Float32Array | undefined> {
    let numActive = 0;
    for (let row = 0; row < numRows; row++) {
      const sequence = this.slots.row(row);
      this.#active[row] = sequence === undefined ? 0 : 1;
      this.#ids[row] = sequence?.idAt(this.runner.length(row)) ?? 0;
      if (sequence !== undefined) numActive++;
    }
    this.batchSize.observe(numActive);
    try {
      return await this.runner.step(0, this.#ids.subarray(0, numRows), this.#active.subarray(0, numRows));
    } catch (thrown) {
      for (let row = 0; row < numRows; row++) {
        const sequence = this.slots.row(row);
        if (sequence !== undefined) this.listener.fail(sequence, thrown);
      }
      return undefined;
    }
  }

  /** Chooses the row's next id unless its prompt goes on. The first output and the end are handed out at once. */
  #choose(row: number, logits: Float32Array): void {
    const sequence = this.slots.row(row);
    if (sequence === undefined) return;
    const offset = row * this.runner.info.vocabularySize;
    const length = this.runner.length(row);
    if (length < sequence.inputEnd) {
      sequence.scorePrompt(length, logits, offset);
      sequence.endIfNothingIsLeft();
      if (sequence.outputEnd !== undefined) this.listener.commit(sequence);
      return;
    }
    try {
      sequence.generate(logits, offset, this.sampler);
    } catch (thrown) {
      this.listener.fail(sequence, thrown);
      return;
    }
    if (sequence.outputEnd !== undefined || !sequence.hasHandedOut) this.listener.commit(sequence);
  }

  #commitAll(): void {
    for (let row = 0; row < this.slots.numRows; row++) {
      const sequence = this.slots.row(row);
      if (sequence !== undefined) this.listener.commit(sequence);
    }
  }
}
