import type { SequenceState } from "../core/state-snapshot.js";

/** A conversation with the model that can be gone on with at any time. */
export interface Session {
  readonly id: string;
  /** Unix seconds. */
  readonly createdSeconds: number;
  readonly lastUsedSeconds: number;
  /** Bytes of the conversation. */
  readonly length: number;
  /** Undefined while nothing was said. */
  readonly state: SequenceState | undefined;
}

/** Letters, digits, `_`, `-` and `.`, not at the beginning: part of a path and of a file name. */
export const SESSION_ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$/;
