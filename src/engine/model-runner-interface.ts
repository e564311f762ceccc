import type { HistogramCounts } from "../core/histogram.js";
import type { ModelInfo } from "../core/model-info.js";
import type { StateSnapshot } from "../core/state-snapshot.js";

/**
 * Takes one row of logits, at `offset`: the prediction of the id `index` places behind those the slot held before the
 * call. Valid during the call only.
 */
export type LogitsVisitor = (index: number, logits: Float32Array, offset: number) => void;

/** What the engine needs of a model: slots that are fed bytes and answer with logits. */
export interface ModelRunner {
  readonly info: ModelInfo;
  readonly numSlots: number;
  /** Bytes of a local patch: sequences that start together stay aligned. N = 1: 1. */
  readonly patchLength: number;
  readonly stateBytesPerSlot: number;
  /** Of each stage: how long its calls took. */
  readonly stepSeconds: readonly HistogramCounts[];
  /** Logits of the very first byte (empty prompt), [V]. */
  readonly initialLogits: Float32Array;
  /** Logits by which the first byte of a sequence is scored, as in training: no context reaches them. [V] */
  readonly scoringLogits: Float32Array;
  /** Puts the empty sequence into a slot. */
  reset(slot: number): void;
  /** Bytes fed so far. */
  length(slot: number): number;
  /**
   * Feeds up to `maxSteps` whole steps of `ids` (those behind what was fed before) to non-local stages. Returns the ids
   * taken; 0 when the rest, at least one id, is the local stage's.
   */
  prefill(slot: number, ids: Uint16Array, maxSteps: number): number | Promise<number>;
  /**
   * As `prefill`, through all stages and with the logits after every id taken, in no particular order: at most `maxSteps`
   * local patches, side by side. The same bits as `step` gives one by one.
   */
  score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): number | Promise<number>;
  /**
   * Feeds one id to each slot `firstSlot + i`. Rows with `active[i] === 0` are holes: computed along, never advanced.
   * Returns logits, row i at i·V; valid until the next call.
   */
  step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Float32Array | Promise<Float32Array>;
  /** Copies a sequence to another slot. */
  move(from: number, to: number): void;
  snapshot(slot: number): StateSnapshot;
  /**
   * The state as it was at the last patch border. Smaller than a whole snapshot: the local stage starts anew there. It
   * fits a slot that was reset.
   */
  borderSnapshot(slot: number): StateSnapshot;
  restore(slot: number, snapshot: StateSnapshot): void;
  /** Whether a snapshot from elsewhere is of this model's shapes, so that it can be restored. */
  fits(snapshot: StateSnapshot): boolean;
  dispose(): void;
}
