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
}
