import type { Bundle } from "../bundle/bundle.js";
import type { StageManifest } from "../bundle/manifest.js";
import { numElements, type Tensor } from "../runtime/backend.js";

interface StateTensor {
  readonly past: string;
  readonly present: string;
  readonly shape: readonly number[];
  /** Values per row. */
  readonly size: number;
  /** `[numSlots, ...shape]` */
  readonly data: Float32Array;
  /** Where a graph that cannot update in place writes; same layout. */
  readonly scratch: Float32Array | undefined;
  readonly initial: Float32Array;
  /** A cache that keeps position 0 (the start token) and needs no reset. */
  readonly isCache: boolean;
}

/** One sequence's copy of a stage's state. */
export type StageSnapshot = readonly Float32Array[];

/** The states of one stage for all slots, in memory that is allocated once and bound to the graphs. */
export class StageState {
  readonly #tensors: readonly StateTensor[];

  constructor(bundle: Bundle, stage: StageManifest, numSlots: number) {
    this.#tensors = stage.states.map((state) => {
      const size = numElements(state.shape);
      return {
        past: state.past,
        present: state.present,
        shape: state.shape,
        size,
        data: new Float32Array(numSlots * size),
        scratch: state.update === "copy" ? new Float32Array(numSlots * size) : undefined,
        initial: bundle.constant(state.initial.tensor),
        isCache: state.reset === "none",
      };
    });
  }

  get bytesPerSlot(): number {
    return this.#tensors.reduce((sum, tensor) => sum + 4 * tensor.size, 0);
  }

  /** Graph inputs and outputs for the rows `firstSlot … firstSlot+rows-1`. */
  ports(firstSlot: number, rows: number): { inputs: Record<string, Tensor>; outputs: Record<string, Tensor> } {
    const inputs: Record<string, Tensor> = {};
    const outputs: Record<string, Tensor> = {};
    for (const { past, present, shape, size, data, scratch } of this.#tensors) {
      const view = (memory: Float32Array): Tensor => ({
        data: memory.subarray(firstSlot * size, (firstSlot + rows) * size),
        shape: [rows, ...shape],
      });
      inputs[past] = view(data);
      outputs[present] = scratch ? view(scratch) : inputs[past];
    }
    return { inputs, outputs };
  }

  /** Makes the result of a run current, where the graph could not do so itself. */
  commit(firstSlot: number, rows: number): void {
    for (const { size, data, scratch } of this.#tensors) {
      if (scratch) data.set(scratch.subarray(firstSlot * size, (firstSlot + rows) * size), firstSlot * size);
    }
  }

  /** Puts a fresh slot into the state after the start token. */
  initialize(slot: number): void {
    for (const tensor of this.#tensors) {
      if (tensor.isCache)
        writeCache(tensor, slot, tensor.initial); // [H, 1, d], the start token's row
      else tensor.data.set(tensor.initial, slot * tensor.size);
    }
  }

  /** As `initialize`, for a slot that has been initialised before: caches still hold the start token. */
  restart(slot: number): void {
    for (const { isCache, data, initial, size } of this.#tensors) if (!isCache) data.set(initial, slot * size);
  }

  move(from: number, to: number): void {
    for (const { data, size } of this.#tensors) data.copyWithin(to * size, from * size, (from + 1) * size);
  }

  /** @param numFilled positions of caches that are in use, the start token's included; the rest is left out */
  snapshot(slot: number, numFilled: number): StageSnapshot {
    return this.#tensors.map((tensor) => {
      if (tensor.isCache) return readCache(tensor, slot, numFilled);
      return tensor.data.slice(slot * tensor.size, (slot + 1) * tensor.size);
    });
  }

  /** Whether the tensors have the sizes of this stage's, with so many positions in caches: the rest is another's. */
  fits(snapshot: StageSnapshot, numFilled: number): boolean {
    return (
      snapshot.length === this.#tensors.length &&
      this.#tensors.every(({ isCache, shape, size }, i) => {
        const { length } = snapshot[i]!;
        const used = isCache ? shape[0]! * numFilled * shape[2]! : size;
        return used <= size && length === used;
      })
    );
  }

  restore(slot: number, snapshot: StageSnapshot): void {
    for (const [i, tensor] of this.#tensors.entries()) {
      if (tensor.isCache) writeCache(tensor, slot, snapshot[i]!);
      else tensor.data.set(snapshot[i]!, slot * tensor.size);
    }
  }
}

/** The first positions of a cache [H, capacity, d] as [H, numFilled, d]. */
function readCache({ data, shape, size }: StateTensor, slot: number, numFilled: number): Float32Array {
  const [heads, capacity, width] = shape as [number, number, number];
  const used = numFilled * width;
  const values = new Float32Array(heads * used);
  for (let head = 0; head < heads; head++) {
    const start = slot * size + head * capacity * width;
    values.set(data.subarray(start, start + used), head * used);
  }
  return values;
}

/** Writes [H, n, d] to the first n positions of a cache [H, capacity, d]. */
function writeCache({ data, shape, size }: StateTensor, slot: number, values: Float32Array): void {
  const [heads, capacity, width] = shape as [number, number, number];
  const used = values.length / heads;
  for (let head = 0; head < heads; head++) {
    data.set(values.subarray(head * used, (head + 1) * used), slot * size + head * capacity * width);
  }
}
