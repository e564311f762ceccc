/** A snapshot of the engine, cheap enough to take at every step. */
export interface EngineStats {
  readonly numSlots: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly promptBytesTotal: number;
  readonly generatedBytesTotal: number;
  /** Bytes of state memory held by all slots. */
  readonly stateBytes: number;
}
