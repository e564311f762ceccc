import type { HistogramCounts } from "./histogram.js";

export interface PrefixCacheStats {
  /** Snapshots held. */
  readonly numEntries: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Prompts looked up, and prompt bytes of them. */
  readonly numQueries: number;
  readonly queriedBytes: number;
  /** Prompts for which a prefix was found, and prompt bytes reused. */
  readonly numHits: number;
  readonly hitBytes: number;
}

/** Of a model that runs on a device. */
export interface DeviceStats {
  /** As its maker calls it. */
  readonly name: string;
  /** Memory of the whole device, whoever uses it; absent where that is no matter of its own. */
  readonly memory?: { readonly freeBytes: number; readonly totalBytes: number } | undefined;
  /** Bytes of this model by what they are for: weights, state, sampling, workspace. */
  readonly bytes: Readonly<Record<string, number>>;
  /** Graphs of kernels that were recorded, so that a batch size is launched as a whole. */
  readonly numGraphs: number;
  /** Seconds that recording them took, at the start. */
  readonly recordingSeconds: number;
  /** Of each stage: batches of up to so many rows are run by a fused kernel. */
  readonly fusedRows: readonly number[];
}

/** A snapshot of the engine, cheap enough to take at every step. */
export interface EngineStats {
  readonly numSlots: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly promptBytesTotal: number;
  readonly generatedBytesTotal: number;
  readonly prefixCache: PrefixCacheStats;
  /** Of each stage: seconds that a call of its graph took. */
  readonly stepSeconds: readonly HistogramCounts[];
  /** Sequences that a step of decoding served. */
  readonly batchSize: HistogramCounts;
  /** Bytes of state memory held by all slots. */
  readonly stateBytes: number;
  /** Absent on a CPU. */
  readonly device?: DeviceStats | undefined;
}
