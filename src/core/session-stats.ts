/** What a store of sessions holds. */
export interface SessionStats {
  readonly numSessions: number;
  /** Sessions whose state is in this process's memory, and what they take. */
  readonly numInMemory: number;
  readonly memoryBytes: number;
  /** Bytes on the disk; undefined where others know. */
  readonly storedBytes: number | undefined;
  /** Whether the store answers. */
  readonly isUp: boolean;
}
