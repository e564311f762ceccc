import { type SequenceState, stateBytes, stateLength } from "../core/state-snapshot.js";
import { NO_PROGRESS, progressBytes, type StreamProgress } from "./stream-progress.js";

/** What is kept of a session. */
export interface SessionRecord {
  /** Unix seconds. */
  readonly createdSeconds: number;
  /** Undefined while nothing was said. */
  readonly state: SequenceState | undefined;
  readonly progress: StreamProgress;
}

/** What is told of a session without its state. */
export interface SessionSummary {
  readonly id: string;
  /** Unix seconds. */
  readonly createdSeconds: number;
  readonly lastUsedSeconds: number;
  /** Bytes of the conversation; undefined where that is not known without reading the state. */
  readonly length: number | undefined;
}

/** A conversation with the model that can be gone on with at any time. */
export interface Session extends SessionRecord, SessionSummary {
  readonly length: number;
}

/** What a request makes of a session; what is left out stays as it is. */
export interface SessionChange {
  readonly state?: SequenceState | undefined;
  readonly progress?: StreamProgress;
}

/** Letters, digits, `_`, `-` and `.`, not at the beginning: part of a path and of a file name. */
export const SESSION_ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$/;

export function newRecord(createdSeconds: number, state?: SequenceState): SessionRecord {
  return { createdSeconds, state, progress: NO_PROGRESS };
}

/** A new state that does not come from the session's stream leaves an interrupted generation of it without a place. */
export function changed(record: SessionRecord, { state, progress }: SessionChange): SessionRecord {
  const { partial: _, ...settled } = record.progress;
  return { ...record, state: state ?? record.state, progress: progress ?? (state ? settled : record.progress) };
}

export function lengthOf({ state }: SessionRecord): number {
  return state === undefined ? 0 : stateLength(state);
}

/** Memory that the record takes, about. */
export function recordBytes({ state, progress }: SessionRecord): number {
  return progressBytes(progress) + (state === undefined ? 0 : stateBytes(state));
}
