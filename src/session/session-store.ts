import type { SessionStats } from "../core/session-stats.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { type ErrorCode, MblmError } from "../errors.js";
import { SESSION_ID, type Session, type SessionChange, type SessionSummary } from "./session.js";

export interface SessionLimits {
  readonly maxSessions: number;
  /** Memory for states. Where they are stored as well, those used longest ago leave the memory; else new ones are refused. */
  readonly maxBytes: number;
  /** Unused sessions are forgotten after this. */
  readonly ttlSeconds: number;
}

/** When a change is stored: with it, when its session is let go, or when the server stops (or needs the memory). */
export type SavePolicy = "change" | "park" | "shutdown";

export interface AcquireOptions {
  /** Asks whoever holds the session to let go of it, and waits a little. */
  readonly takeOver?: boolean;
  /** Called when somebody else wants the session, or has it already. */
  readonly onWanted?: () => void;
}

/** A session that one request may change. */
export interface AcquiredSession {
  /** As it is now. Who keeps a session for long need not keep its state: it can be read again. */
  readonly read: () => Promise<Session>;
  /**
   * Makes the change; returns the session with it. Once it resolves, others see it, and with the policy `change` it is stored.
   *
   * @throws MblmError `session_conflict` when the session was taken away, `overloaded` or `store_unavailable`
   */
  readonly commit: (change: SessionChange) => Promise<Session>;
  /** Lets others change it. Never rejects. */
  readonly end: () => Promise<void>;
}

/** Sessions by id. One is changed by one request at a time; a request that fails leaves it as it was. */
export interface SessionStore {
  /** Every session, the one used longest ago first. */
  list(): Promise<SessionSummary[]>;
  /** @throws MblmError `session_conflict`, `invalid_request` or `overloaded` */
  create(id?: string, state?: SequenceState): Promise<Session>;
  /** @throws MblmError `session_not_found`, or `invalid_request` when what is stored is damaged */
  get(id: string): Promise<Session>;
  /** As `get`; `end` must be called. @throws MblmError `session_not_found`, or `session_conflict` while it is in use */
  acquire(id: string, options?: AcquireOptions): Promise<AcquiredSession>;
  /** @throws MblmError `session_not_found`, or `session_conflict` while it is in use */
  delete(id: string): Promise<void>;
  stats(): Promise<SessionStats>;
  /** Stores what is not stored yet. */
  close(): Promise<void>;
}

/** How long a session that is taken over is waited for. */
export const TAKE_OVER_SECONDS = 5;

/** Runs a change of one session; nobody else may change it meanwhile. */
export async function changeSession<T>(
  store: SessionStore,
  id: string,
  work: (acquired: AcquiredSession) => Promise<T>,
): Promise<T> {
  const acquired = await store.acquire(id);
  try {
    return await work(acquired);
  } finally {
    await acquired.end();
  }
}

/**
 * As `acquire`; makes the session if there is none.
 *
 * @throws MblmError what `acquire` and `create` do, `session_not_found` aside
 */
export async function acquireOrCreate(
  store: SessionStore,
  id: string,
  options: AcquireOptions,
): Promise<AcquiredSession> {
  try {
    return await store.acquire(id, options);
  } catch (thrown) {
    if (!hasCode(thrown, "session_not_found")) throw thrown;
  }
  await store.create(id).catch((thrown: unknown) => {
    if (!hasCode(thrown, "session_conflict")) throw thrown; // else somebody has just made it
  });
  return store.acquire(id, options).catch((thrown: unknown) => {
    throw hasCode(thrown, "session_not_found") ? inUse(id) : thrown; // by somebody who has deleted it, or saw it expire
  });
}

function hasCode(thrown: unknown, code: ErrorCode): boolean {
  return thrown instanceof MblmError && thrown.code === code;
}

/** With its owner before it, where it has one: see owned-sessions.ts. */
const STORED_ID = new RegExp(`^([A-Za-z0-9_-]{1,32}~)?${SESSION_ID.source.slice(1)}`);

export function requireId(id: string): void {
  if (STORED_ID.test(id)) return;
  throw new MblmError("invalid_request", `id: must match ${SESSION_ID.source}`, { field: "id" });
}

export function notFound(id: string): MblmError {
  return new MblmError("session_not_found", `There is no session ${id}.`, { field: "session_id" });
}

export function inUse(id: string): MblmError {
  return new MblmError("session_conflict", `The session ${id} is in use; try again later.`);
}

export function idTaken(id: string): MblmError {
  return new MblmError("session_conflict", `id: the session ${id} exists already`, { field: "id" });
}

export function tooMany(maxSessions: number): MblmError {
  return new MblmError("overloaded", `There are ${maxSessions} sessions already; delete one or try again later.`);
}
