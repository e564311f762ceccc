import type { ByteAutomaton } from "../core/byte-automaton.js";
import type { DeviceStats } from "../core/engine-stats.js";
import type { HistogramCounts } from "../core/histogram.js";
import type { ModelInfo } from "../core/model-info.js";
import type { StateSnapshot } from "../core/state-snapshot.js";
import type { PatchBatch, PatchOutput, SamplingTables } from "./patch-batch.js";

/**
 * Takes one row of logits, at `offset`: the prediction of the id `index` places behind those the slot held before the
 * call. Valid during the call only.
 */
export type LogitsVisitor = (index: number, logits: Float32Array, offset: number) => void;

/** What the engine needs of every model: slots that hold sequences, prompts fed and scored, states taken and put back. */
export interface SequenceRunner {
  readonly info: ModelInfo;
  readonly numSlots: number;
  /** Bytes of a local patch: sequences that start together stay aligned. N = 1: 1. */
  readonly patchLength: number;
  /** Most steps of one `prefill` or `score` call. */
  readonly maxPrefillSteps: number;
  readonly stateBytesPerSlot: number;
  /** Of each stage: how long its calls took. */
  readonly stepSeconds: readonly HistogramCounts[];
  /** Of a model on a device. */
  readonly deviceStats?: DeviceStats;
  /** Logits of the very first byte (empty prompt), [V]. */
  readonly initialLogits: Float32Array;
  /** Logits by which the first byte of a sequence is scored, as in training: no context reaches them. [V] */
  readonly scoringLogits: Float32Array;
  /** Puts the empty sequence into a slot. */
  reset(slot: number): void;
  /** Bytes fed so far. */
  length(slot: number): number;
  /**
   * Feeds whole patches of `ids` (those behind what was fed before) to non-local stages, in at most `maxSteps` steps. Returns
   * the ids taken; 0 when the rest, at least one id and at most a patch, is the local stage's.
   */
  prefill(slot: number, ids: Uint16Array, maxSteps: number): number | Promise<number>;
  /**
   * As `prefill`, through all stages and with the logits after every id taken, in no particular order: at most `maxSteps`
   * local patches, side by side. The same bits as `step` gives one by one.
   */
  score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): number | Promise<number>;
  /** Copies a sequence to another slot. */
  move(from: number, to: number): void;
  /** Exchanges the sequences of two slots. */
  swap(a: number, b: number): void;
  snapshot(slot: number): StateSnapshot;
  /**
   * The state as it was at the last patch border. Smaller than a whole snapshot: the local stage starts anew there. It
   * fits a slot that was reset.
   *
   * @param length the border is that of the first `length` ids: the slot's, when left out, or one less when the latest id
   *   was fed byte by byte. With one stage it is the slot's.
   */
  borderSnapshot(slot: number, length?: number): StateSnapshot;
  restore(slot: number, snapshot: StateSnapshot): void;
  /** Whether a snapshot from elsewhere is of this model's shapes, so that it can be restored. */
  fits(snapshot: StateSnapshot): boolean;
  dispose(): void;
}

/** A model that is fed byte by byte: its logits come to the host, which chooses. */
export interface ModelRunner extends SequenceRunner {
  /**
   * Feeds one id to each slot `firstSlot + i`. Rows with `active[i] === 0` are holes: computed along, never advanced.
   * Returns logits, row i at i·V; valid until the next call.
   */
  step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Float32Array | Promise<Float32Array>;
}

/** A model on a device: it is fed a whole patch at a time and chooses the bytes itself, by the rule of `Sampler`. */
export interface PatchRunner extends SequenceRunner {
  /** Most rows of a batch. */
  readonly numSlots: number;
  /**
   * Feeds every row one patch, from its first byte at a patch border, and chooses or takes what follows each byte. Rows are
   * of different slots. The result is valid until the next call.
   */
  runPatches(batch: PatchBatch): PatchOutput | Promise<PatchOutput>;
  /** Forgets the ids of the slot's latest patch behind `length`: the sequence ended there. */
  rewind(slot: number, length: number): void | Promise<void>;
  /** What choosing needs of the slot's sequence beside its row; asked for by a row's flags. */
  setSamplingTables(slot: number, tables: SamplingTables): void;
  /**
   * Puts an automaton where rows can name it; the address is valid until it is released as often as it was held.
   *
   * @throws MblmError `overloaded` when there is no memory for it; nothing is held then
   */
  holdAutomaton(automaton: ByteAutomaton): bigint;
  releaseAutomaton(automaton: ByteAutomaton): void;
}

export function isPatchRunner(runner: ModelRunner | PatchRunner): runner is PatchRunner {
  return "runPatches" in runner;
}
