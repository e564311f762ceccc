import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { systemClock } from "../core/clock.js";
import { SerialQueue } from "../core/serial-queue.js";
import type { SessionStats } from "../core/session-stats.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { decodeRecord, encodeRecord } from "./record-codec.js";
import {
  changed,
  lengthOf,
  newRecord,
  recordBytes,
  type Session,
  type SessionRecord,
  type SessionSummary,
} from "./session.js";
import type { SessionFolder } from "./session-files.js";
import {
  type AcquiredSession,
  type AcquireOptions,
  idTaken,
  inUse,
  notFound,
  requireId,
  type SavePolicy,
  type SessionLimits,
  type SessionStore,
  TAKE_OVER_SECONDS,
  tooMany,
} from "./session-store.js";

export interface LocalSessionOptions extends SessionLimits {
  readonly files?: SessionFolder | undefined;
  /** With files: when they are written. */
  readonly save: SavePolicy;
  /** Most bytes of all files. */
  readonly maxStoredBytes: number;
  /** Unix seconds. */
  readonly now: () => number;
  /** Told of writes that fail when nobody waits for them; what could not be written stays in memory. */
  readonly report: (error: Error) => void;
}

interface Entry {
  readonly id: string;
  /** One that is being made is held by its maker and seen by nobody. Of one that is gone, the id may be another's by now. */
  presence: "being made" | "here" | "gone";
  lastUsedSeconds: number;
  /** Unknown until a stored session is read for the first time. */
  length: number | undefined;
  /** From the start until a stored session is read for the first time: when it was written. */
  createdSeconds: number;
  /** Undefined while it is only on the disk. */
  record: SessionRecord | undefined;
  /** Present while it is read from the disk: by one for all who ask. */
  reading: Promise<SessionRecord> | undefined;
  /** Size of its file, 0 without one. */
  storedBytes: number;
  /** Whether the record is newer than the file. */
  isDirty: boolean;
  holder: Holder | undefined;
}

interface Holder {
  readonly onWanted: (() => void) | undefined;
  readonly released: Promise<void>;
  readonly release: () => void;
}

/**
 * The sessions of one server, in its memory and, with files, on its disk, where they outlive the process.
 *
 * What is known of an entry holds until the next `await`. Behind one, these can be relied on: an entry is changed by its holder
 * only, and is not forgotten while it has one; what is asked of a file is done in the order in which it is asked.
 */
export class LocalSessionStore implements SessionStore {
  /** Least recently used first. */
  readonly #entries = new Map<string, Entry>();
  #memoryBytes = 0;
  #storedBytes = 0;
  /** By how much files may grow that are being written. */
  #reservedBytes = 0;

  private constructor(private readonly options: LocalSessionOptions) {}

  static async open(options: LocalSessionOptions): Promise<LocalSessionStore> {
    const store = new LocalSessionStore(options);
    const stored = (await options.files?.open()) ?? [];
    for (const { id, writtenSeconds, numBytes } of stored.sort((a, b) => a.writtenSeconds - b.writtenSeconds)) {
      store.#entries.set(id, {
        ...newEntry(id, Math.floor(writtenSeconds)),
        presence: "here",
        storedBytes: numBytes,
      });
      store.#storedBytes += numBytes;
    }
    return store;
  }

  async list(): Promise<SessionSummary[]> {
    this.#expire();
    const here = [...this.#entries.values()].filter(({ presence }) => presence === "here");
    return here.map(({ id, createdSeconds, lastUsedSeconds, length }) => ({
      id,
      createdSeconds,
      lastUsedSeconds,
      length,
    }));
  }

  async create(id: string = randomUUID(), state?: SequenceState): Promise<Session> {
    requireId(id);
    this.#expire();
    if (this.#entries.has(id)) throw idTaken(id);
    const { maxSessions, save } = this.options;
    if (this.#entries.size >= maxSessions) throw tooMany(maxSessions);
    const seconds = Math.floor(this.options.now());
    const record = newRecord(seconds, state);
    const entry = newEntry(id, seconds);
    this.#entries.set(id, entry);
    const holder = hold(entry);
    try {
      await this.#keep(entry, record, save !== "shutdown");
      entry.presence = "here";
    } catch (thrown) {
      this.#forget(entry);
      throw thrown;
    } finally {
      letGo(entry, holder);
    }
    return toSession(entry, record);
  }

  async get(id: string): Promise<Session> {
    const entry = this.#find(id);
    return toSession(entry, await this.#load(entry));
  }

  async acquire(id: string, { takeOver = false, onWanted }: AcquireOptions = {}): Promise<AcquiredSession> {
    const deadline = systemClock.now() + TAKE_OVER_SECONDS;
    let entry = this.#find(id);
    for (; entry.holder !== undefined; entry = this.#find(id)) {
      // Who makes it does not use it.
      if (entry.presence === "being made") await entry.holder.released;
      else if (!takeOver || !(await letsGo(entry.holder, deadline))) throw inUse(id);
    }
    const holder = hold(entry, onWanted);
    /** A change that is asked for before the end is made before it: whoever comes next goes on from there. */
    const turns = new SerialQueue();
    try {
      await this.#load(entry);
      return {
        read: async () => toSession(entry, await this.#load(entry)),
        commit: (change) =>
          turns.run(async () => {
            if (entry.holder !== holder) throw inUse(id);
            const record = changed(await this.#load(entry), change);
            await this.#keep(entry, record, this.options.save === "change");
            return toSession(entry, record);
          }),
        end: () => turns.run(() => this.#park(entry, holder)),
      };
    } catch (thrown) {
      letGo(entry, holder);
      throw thrown;
    }
  }

  async delete(id: string): Promise<void> {
    const entry = this.#find(id);
    if (entry.holder !== undefined) throw inUse(id);
    this.#forget(entry);
    await this.options.files?.remove(id).catch((cause: Error) => {
      const problem = `The session's file could not be removed: ${cause.message}`;
      throw new MblmError("store_unavailable", `${problem}; it is a session again after a restart.`, { cause });
    });
  }

  async stats(): Promise<SessionStats> {
    const inMemory = [...this.#entries.values()].filter(({ record }) => record?.state !== undefined);
    return {
      numSessions: this.#entries.size,
      numInMemory: inMemory.length,
      memoryBytes: this.#memoryBytes,
      storedBytes: this.#storedBytes,
      isUp: true,
    };
  }

  async close(): Promise<void> {
    for (const entry of this.#entries.values()) if (entry.isDirty) await this.#saveQuietly(entry);
  }

  #find(id: string): Entry {
    this.#expire();
    const entry = this.#entries.get(id);
    if (entry === undefined) throw notFound(id);
    return entry;
  }

  /** Puts the record into the memory, where there are files after it was written if `isWritten`. The entry must be held. */
  async #keep(entry: Entry, record: SessionRecord, isWritten: boolean): Promise<void> {
    const { files } = this.options;
    if (files === undefined) this.#requireRoom(entry, record);
    else if (isWritten) await this.#write(entry, record);
    this.#setRecord(entry, record);
    entry.isDirty = files !== undefined && !isWritten;
    await this.#touch(entry);
  }

  #requireRoom(entry: Entry, record: SessionRecord): void {
    const { maxBytes } = this.options;
    const needed = this.#memoryBytes - bytesOf(entry.record) + recordBytes(record);
    if (needed <= maxBytes || record.state === undefined) return;
    throw new MblmError("overloaded", `The sessions' memory of ${maxBytes} bytes is full; delete one.`);
  }

  async #park(entry: Entry, holder: Holder): Promise<void> {
    if (entry.holder !== holder) return;
    if (entry.isDirty && this.options.save === "park") await this.#saveQuietly(entry);
    this.#noteUse(entry); // it was in use until now, however long ago it was changed
    letGo(entry, holder);
  }

  async #saveQuietly(entry: Entry): Promise<void> {
    await this.#save(entry).catch((error: Error) => this.options.report(error));
  }

  async #save(entry: Entry): Promise<void> {
    const { record } = entry;
    if (record === undefined || this.options.files === undefined) return;
    await this.#write(entry, record);
    if (entry.record === record) entry.isDirty = false;
  }

  async #write(entry: Entry, record: SessionRecord): Promise<void> {
    const content = encodeRecord(record);
    const { maxStoredBytes, files } = this.options;
    const growth = content.length - entry.storedBytes;
    if (this.#storedBytes + this.#reservedBytes + growth > maxStoredBytes) {
      throw new MblmError("overloaded", `The sessions' ${maxStoredBytes} bytes of disk are full; delete one.`);
    }
    const reserved = Math.max(0, growth);
    this.#reservedBytes += reserved;
    try {
      await files!.write(entry.id, content);
    } catch (thrown) {
      const { message } = thrown as Error;
      throw new MblmError("store_unavailable", `The session could not be stored: ${message}`, { cause: thrown });
    } finally {
      this.#reservedBytes -= reserved;
    }
    // A file that is written to save memory may be deleted meanwhile: it was counted out then.
    if (entry.presence === "gone") return;
    this.#storedBytes += content.length - entry.storedBytes;
    entry.storedBytes = content.length;
  }

  /** The record, from the disk if it is only there. */
  async #load(entry: Entry): Promise<SessionRecord> {
    if (entry.presence !== "here") throw notFound(entry.id);
    if (entry.record === undefined) entry.reading ??= this.#read(entry);
    const record = entry.record ?? (await entry.reading!);
    await this.#touch(entry);
    return record;
  }

  async #read(entry: Entry): Promise<SessionRecord> {
    try {
      const content = await this.options.files!.read(entry.id).catch((cause: Error) => {
        throw new MblmError("store_unavailable", `The session could not be read: ${cause.message}`, { cause });
      });
      const record = decodeRecord(content);
      if (entry.presence === "gone") throw notFound(entry.id);
      // Its holder may have changed it meanwhile.
      if (entry.record === undefined) this.#setRecord(entry, record);
      return entry.record!;
    } finally {
      entry.reading = undefined;
    }
  }

  #setRecord(entry: Entry, record: SessionRecord | undefined): void {
    this.#memoryBytes += bytesOf(record) - bytesOf(entry.record);
    entry.record = record;
    if (record === undefined) return;
    entry.length = lengthOf(record);
    entry.createdSeconds = record.createdSeconds;
  }

  /** Notes a use, and lets records leave the memory that are used longest ago and stored. */
  async #touch(entry: Entry): Promise<void> {
    this.#noteUse(entry);
    if (this.options.files === undefined) return;
    for (const other of [...this.#entries.values()]) {
      if (this.#memoryBytes <= this.options.maxBytes) return;
      if (other === entry || other.record === undefined) continue;
      if (other.isDirty) await this.#saveQuietly(other);
      if (!other.isDirty) this.#setRecord(other, undefined);
    }
  }

  #noteUse(entry: Entry): void {
    if (entry.presence === "gone") return;
    entry.lastUsedSeconds = Math.floor(this.options.now());
    this.#entries.delete(entry.id);
    this.#entries.set(entry.id, entry);
  }

  /** Everything is forgotten before anything is waited for: the next one may make a session of the same id. */
  #expire(): void {
    const oldest = this.options.now() - this.options.ttlSeconds;
    for (const entry of this.#entries.values()) {
      if (entry.holder !== undefined || entry.lastUsedSeconds >= oldest) continue;
      this.#forget(entry);
      this.options.files?.remove(entry.id).catch((error: Error) => this.options.report(error));
    }
  }

  #forget(entry: Entry): void {
    this.#setRecord(entry, undefined);
    this.#storedBytes -= entry.storedBytes;
    entry.isDirty = false;
    entry.presence = "gone";
    this.#entries.delete(entry.id);
  }
}

function newEntry(id: string, seconds: number): Entry {
  return {
    id,
    presence: "being made",
    createdSeconds: seconds,
    lastUsedSeconds: seconds,
    length: undefined,
    record: undefined,
    reading: undefined,
    storedBytes: 0,
    isDirty: false,
    holder: undefined,
  };
}

function hold(entry: Entry, onWanted?: () => void): Holder {
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  entry.holder = { onWanted, released, release };
  return entry.holder;
}

function letGo(entry: Entry, holder: Holder): void {
  if (entry.holder === holder) entry.holder = undefined;
  holder.release();
}

/**
 * Asks who holds a session to let go of it; returns whether that was done in time.
 *
 * @param deadline as of `systemClock`
 */
async function letsGo(holder: Holder, deadline: number): Promise<boolean> {
  holder.onWanted?.();
  const controller = new AbortController();
  const left = Math.max(0, deadline - systemClock.now());
  const timeout = setTimeout(left * 1000, false, { signal: controller.signal }).catch(() => false);
  const hasLetGo = await Promise.race([holder.released.then(() => true), timeout]);
  controller.abort();
  return hasLetGo;
}

function toSession(entry: Entry, record: SessionRecord): Session {
  const { id, lastUsedSeconds } = entry;
  return { id, lastUsedSeconds, length: lengthOf(record), ...record };
}

function bytesOf(record: SessionRecord | undefined): number {
  return record === undefined ? 0 : recordBytes(record);
}
