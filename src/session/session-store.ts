import { randomUUID } from "node:crypto";
import type { ModelInfo } from "../core/model-info.js";
import { type SequenceState, stateBytes, stateLength } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { SESSION_ID, type Session } from "./session.js";
import type { SessionFiles } from "./session-files.js";
import { decodeState, encodeState } from "./state-codec.js";

export interface SessionLimits {
  readonly maxSessions: number;
  /** Memory for states. With files, states used longest ago leave the memory; without, new ones are refused. */
  readonly maxBytes: number;
  /** Unused sessions are forgotten after this. */
  readonly ttlSeconds: number;
}

/** A session that one request may change. */
export interface AcquiredSession {
  readonly session: Session;
  /** Keeps a new state; undefined changes nothing. */
  readonly commit: (state: SequenceState | undefined) => Promise<void>;
  /** Lets others change it. */
  readonly end: () => void;
}

interface Entry {
  readonly id: string;
  readonly createdSeconds: number;
  lastUsedSeconds: number;
  /** Unknown until a stored session is read for the first time. */
  length: number | undefined;
  /** Undefined while it is empty or only on the disk. */
  state: SequenceState | undefined;
  isStored: boolean;
  isBusy: boolean;
}

/**
 * The sessions of one server. A session is changed by one request at a time; a request that fails leaves it as it was.
 * With files, a change is on the disk before it is acknowledged, and sessions outlive the process.
 */
export class SessionStore {
  /** Least recently used first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  private constructor(
    private readonly model: Pick<ModelInfo, "id" | "bundleDigest">,
    private readonly limits: SessionLimits,
    private readonly files: SessionFiles | undefined,
    /** Unix seconds. */
    private readonly now: () => number,
  ) {}

  /** @param now Unix seconds */
  static async open(
    model: Pick<ModelInfo, "id" | "bundleDigest">,
    limits: SessionLimits,
    files: SessionFiles | undefined,
    now: () => number,
  ): Promise<SessionStore> {
    const store = new SessionStore(model, limits, files, now);
    const stored = (await files?.open()) ?? [];
    for (const { id, writtenSeconds } of stored.sort((a, b) => a.writtenSeconds - b.writtenSeconds)) {
      store.#entries.set(id, { ...newEntry(id, writtenSeconds), length: undefined, isStored: true });
    }
    return store;
  }

  get numSessions(): number {
    return this.#entries.size;
  }

  /** Memory of states. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Every session, the one used longest ago first; those never read since the start without their lengths. */
  async list(): Promise<(Omit<Session, "state" | "length"> & { readonly length: number | undefined })[]> {
    await this.#expire();
    return [...this.#entries.values()].map(({ id, createdSeconds, lastUsedSeconds, length }) => ({
      id,
      createdSeconds,
      lastUsedSeconds,
      length,
    }));
  }

  /** @throws MblmError `session_conflict`, `invalid_request` or `overloaded` */
  async create(id: string = randomUUID(), state?: SequenceState): Promise<Session> {
    if (!SESSION_ID.test(id))
      throw new MblmError("invalid_request", `id: must match ${SESSION_ID.source}`, { field: "id" });
    await this.#expire();
    if (this.#entries.has(id))
      throw new MblmError("session_conflict", `id: the session ${id} exists already`, { field: "id" });
    if (this.#entries.size >= this.limits.maxSessions) {
      throw new MblmError(
        "overloaded",
        `There are ${this.limits.maxSessions} sessions already; delete one or try again later.`,
      );
    }
    const entry = newEntry(id, Math.floor(this.now()));
    this.#entries.set(id, entry);
    entry.isBusy = true;
    try {
      if (state !== undefined) await this.#keep(entry, state);
      else if (this.files !== undefined) await this.#write(entry, undefined);
    } catch (thrown) {
      this.#forget(entry);
      throw thrown;
    } finally {
      entry.isBusy = false;
    }
    return toSession(entry);
  }

  /** @throws MblmError `session_not_found`, or `invalid_request` when what is stored does not fit the model */
  async get(id: string): Promise<Session> {
    const entry = await this.#find(id);
    await this.#load(entry);
    return toSession(entry);
  }

  /**
   * Runs a change of one session; nobody else may change it meanwhile. Its new state is kept when `commit` resolves.
   *
   * @throws MblmError `session_not_found`, or `session_conflict` while it is being changed
   */
  async change<T>(
    id: string,
    work: (session: Session, commit: (state: SequenceState | undefined) => Promise<void>) => Promise<T>,
  ): Promise<T> {
    const acquired = await this.acquire(id);
    try {
      return await work(acquired.session, acquired.commit);
    } finally {
      acquired.end();
    }
  }

  /** As `change`, for work that has no one end: `end` must be called. */
  async acquire(id: string): Promise<AcquiredSession> {
    const entry = await this.#find(id);
    this.#requireFree(entry);
    entry.isBusy = true;
    try {
      await this.#load(entry);
    } catch (thrown) {
      entry.isBusy = false;
      throw thrown;
    }
    return {
      session: toSession(entry),
      commit: (state) => (state === undefined ? Promise.resolve() : this.#keep(entry, state)),
      end: () => {
        entry.isBusy = false;
      },
    };
  }

  /** @throws MblmError `session_not_found`, or `session_conflict` while it is being changed */
  async delete(id: string): Promise<void> {
    const entry = await this.#find(id);
    this.#requireFree(entry);
    this.#forget(entry);
    await this.files?.remove(id);
  }

  async #find(id: string): Promise<Entry> {
    await this.#expire();
    const entry = this.#entries.get(id);
    if (entry === undefined)
      throw new MblmError("session_not_found", `There is no session ${id}.`, { field: "session_id" });
    return entry;
  }

  #requireFree(entry: Entry): void {
    if (entry.isBusy) throw new MblmError("session_conflict", `The session ${entry.id} is in use; try again later.`);
  }

  /** Puts the state into the memory, and first onto the disk if there is one. */
  async #keep(entry: Entry, state: SequenceState): Promise<void> {
    if (this.files === undefined) this.#requireRoom(entry, state);
    else await this.#write(entry, state);
    this.#setState(entry, state);
    entry.length = stateLength(state);
    this.#touch(entry);
  }

  #requireRoom(entry: Entry, state: SequenceState): void {
    const needed = this.#bytes - bytesOf(entry.state) + stateBytes(state);
    if (needed <= this.limits.maxBytes) return;
    throw new MblmError("overloaded", `The sessions' memory of ${this.limits.maxBytes} bytes is full; delete one.`);
  }

  async #write(entry: Entry, state: SequenceState | undefined): Promise<void> {
    const content = state === undefined ? Buffer.alloc(0) : encodeState(state, this.model);
    await this.files!.write(entry.id, content).catch((cause: Error) => {
      throw new MblmError("engine_failed", `The session could not be stored: ${cause.message}`, { cause });
    });
    entry.isStored = true;
  }

  /** Reads a state that is only on the disk. */
  async #load(entry: Entry): Promise<void> {
    if (entry.state !== undefined || !entry.isStored || entry.length === 0) {
      this.#touch(entry);
      return;
    }
    const content = await this.files!.read(entry.id);
    if (content.length === 0) {
      entry.length = 0;
    } else {
      this.#setState(entry, decodeState(content, this.model));
      entry.length = stateLength(entry.state!);
    }
    this.#touch(entry);
  }

  #setState(entry: Entry, state: SequenceState | undefined): void {
    this.#bytes += bytesOf(state) - bytesOf(entry.state);
    entry.state = state;
  }

  /** Notes a use, and lets states leave the memory that are used longest ago and stored. */
  #touch(entry: Entry): void {
    entry.lastUsedSeconds = Math.floor(this.now());
    this.#entries.delete(entry.id);
    this.#entries.set(entry.id, entry);
    for (const other of this.#entries.values()) {
      if (this.#bytes <= this.limits.maxBytes) return;
      if (other !== entry && other.isStored && !other.isBusy) this.#setState(other, undefined);
    }
  }

  async #expire(): Promise<void> {
    const oldest = this.now() - this.limits.ttlSeconds;
    for (const entry of [...this.#entries.values()]) {
      if (entry.isBusy || entry.lastUsedSeconds >= oldest) continue;
      this.#forget(entry);
      await this.files?.remove(entry.id);
    }
  }

  #forget(entry: Entry): void {
    this.#setState(entry, undefined);
    this.#entries.delete(entry.id);
  }
}

function newEntry(id: string, seconds: number): Entry {
  return {
    id,
    createdSeconds: seconds,
    lastUsedSeconds: seconds,
    length: 0,
    state: undefined,
    isStored: false,
    isBusy: false,
  };
}

function toSession({ id, createdSeconds, lastUsedSeconds, length, state }: Entry): Session {
  return { id, createdSeconds, lastUsedSeconds, length: length ?? 0, state };
}

function bytesOf(state: SequenceState | undefined): number {
  return state === undefined ? 0 : stateBytes(state);
}
