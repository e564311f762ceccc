import type { StateSnapshot } from "../core/state-snapshot.js";
import { dueStage, stepsMade } from "./patch-cursor.js";

/** What a snapshot tells of where its sequence stands. */
type Progress = Pick<StateSnapshot, "length" | "crossedAt" | "recent">;

/** Where the sequence of every slot stands, and its last S_0 ids: what the next step of any stage embeds. */
export class SlotProgress {
  readonly #lengths: Float64Array;
  /** Length at which the slot's latest border was crossed: prefill crosses borders before the next byte is known. */
  readonly #crossedAt: Float64Array;
  /** At index (byte index mod S_0) of the slot's part. */
  readonly #recent: Uint16Array;
  readonly #stride: number;

  /** @param strides S_i, the bytes that one step of stage i covers; the last is 1 when there is more than one stage */
  constructor(
    private readonly numSlots: number,
    private readonly strides: readonly number[],
  ) {
    this.#stride = strides[0]!;
    this.#lengths = new Float64Array(numSlots);
    this.#crossedAt = new Float64Array(numSlots);
    this.#recent = new Uint16Array(numSlots * this.#stride);
  }

  /** Ids fed. */
  length(slot: number): number {
    return this.#lengths[slot]!;
  }

  reset(slot: number): void {
    this.#lengths[slot] = this.#crossedAt[slot] = 0;
  }

  /** The stage whose step must be made before the slot's next id, or -1. */
  dueStage(slot: number): number {
    const length = this.#lengths[slot]!;
    return this.#crossedAt[slot] === length ? -1 : dueStage(length, this.strides);
  }

  /** The step that was due at the slot's length is made. */
  cross(slot: number): void {
    this.#crossedAt[slot] = this.#lengths[slot]!;
  }

  /** Steps that a stage has made in its current parent sequence, start token not counted. */
  stepsMade(slot: number, stage: number): number {
    return stepsMade(this.#lengths[slot]!, stage, this.strides);
  }

  /** As `stepsMade`, before the step over the patch that the slot has just completed. */
  stepsBefore(slot: number, stage: number): number {
    return stepsMade(this.#lengths[slot]! - this.strides[stage]!, stage, this.strides);
  }

  /** Id `k` of the patch of `stage` that the slot has just completed. */
  patchId(slot: number, stage: number, k: number): number {
    const start = this.#lengths[slot]! - this.strides[stage]!;
    return this.#recent[slot * this.#stride + (start % this.#stride) + k]!;
  }

  /** Takes note of an id that was fed. */
  push(slot: number, id: number): void {
    const length = this.#lengths[slot]!;
    this.#recent[slot * this.#stride + (length % this.#stride)] = id;
    this.#lengths[slot] = length + 1;
  }

  /** Takes note of ids that were fed. */
  pushAll(slot: number, ids: Uint16Array): void {
    const length = this.#lengths[slot]!;
    const first = Math.max(0, ids.length - this.#stride);
    for (let k = first; k < ids.length; k++) {
      this.#recent[slot * this.#stride + ((length + k) % this.#stride)] = ids[k]!;
    }
    this.#lengths[slot] = length + ids.length;
  }

  /** Forgets ids of the slot's latest local patch: those behind `length`. */
  rewind(slot: number, length: number): void {
    this.#lengths[slot] = length;
  }

  move(from: number, to: number): void {
    for (const memory of [this.#recent, this.#lengths, this.#crossedAt]) {
      const size = memory.length / this.numSlots;
      memory.copyWithin(to * size, from * size, (from + 1) * size);
    }
  }

  swap(a: number, b: number): void {
    const displaced = this.snapshot(b, this.#lengths[b]!);
    this.move(a, b);
    this.restore(a, displaced);
  }

  /** @param length that the snapshot is of: the slot's, or that of its latest local border */
  snapshot(slot: number, length: number): Progress {
    return {
      length,
      crossedAt: this.#crossedAt[slot]!,
      recent: this.#recent.slice(slot * this.#stride, (slot + 1) * this.#stride),
    };
  }

  restore(slot: number, { length, crossedAt, recent }: Progress): void {
    this.#lengths[slot] = length;
    this.#crossedAt[slot] = crossedAt;
    this.#recent.set(recent, slot * this.#stride);
  }

  /** Whether a snapshot from elsewhere stands at a border of this model's patches. */
  fits({ length, crossedAt, recent }: Progress, vocabularySize: number): boolean {
    return (
      Number.isSafeInteger(length) &&
      Number.isSafeInteger(crossedAt) &&
      crossedAt >= 0 &&
      crossedAt <= length &&
      length % this.#patchLength === 0 &&
      recent.length === this.#stride &&
      recent.every((id) => id < vocabularySize)
    );
  }

  /** Steps of a stage that a snapshot's state holds: a step that is due at its length is not made yet. */
  stepsHeld({ length, crossedAt }: Progress, stage: number): number {
    const isDue = crossedAt !== length && stage < this.strides.length - 1 && length % this.strides[stage]! === 0;
    return stepsMade(isDue && length > 0 ? length - 1 : length, stage, this.strides);
  }

  /** Bytes of a local patch; 1 for a model of one stage. */
  get #patchLength(): number {
    return this.strides.length > 1 ? this.strides[this.strides.length - 2]! : 1;
  }
}
