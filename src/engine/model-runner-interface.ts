import type { ModelInfo } from "../core/model-info.js";
import type { StageSnapshot } from "../state/stage-state.js";

/** A sequence's whole state as a value: it can be kept, copied and restored, bit for bit. */
export interface StateSnapshot {
  readonly length: number;
  readonly crossedAt: number;
  readonly recent: Uint16Array;
  readonly contexts: readonly Float32Array[];
  readonly stages: readonly StageSnapshot[];
}

/** What the engine needs of a model: slots that are fed bytes and answer with logits. */
export interface ModelRunner {
  readonly info: ModelInfo;
  readonly numSlots: number;
  /** Bytes of a local patch: sequences that start together stay aligned. N = 1: 1. */
  readonly patchLength: number;
  readonly stateBytesPerSlot: number;
  /** Logits of the very first byte (empty prompt), [V]. */
  readonly initialLogits: Float32Array;
  /** Puts the empty sequence into a slot. */
  reset(slot: number): void;
  /** Bytes fed so far. */
  length(slot: number): number;
  /**
   * Feeds up to `maxSteps` whole steps of `ids` (the sequence from its beginning) to non-local stages. Returns the ids taken;
   * 0 when the rest, at least one id, is the local stage's.
   */
  prefill(slot: number, ids: Uint16Array, maxSteps: number): number | Promise<number>;
  /**
   * Feeds one id to each slot `firstSlot + i`. Rows with `active[i] === 0` are holes: computed along, never advanced.
   * Returns logits, row i at i·V; valid until the next call.
   */
  step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Float32Array | Promise<Float32Array>;
  /** Copies a sequence to another slot. */
  move(from: number, to: number): void;
  snapshot(slot: number): StateSnapshot;
  restore(slot: number, snapshot: StateSnapshot): void;
  dispose(): void;
}
