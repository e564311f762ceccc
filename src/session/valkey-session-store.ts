import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { SerialQueue } from "../core/serial-queue.js";
import type { SessionStats } from "../core/session-stats.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { RecordCache } from "./record-cache.js";
import { decodeRecord, encodeRecord } from "./record-codec.js";
import { changed, lengthOf, newRecord, type Session, type SessionRecord, type SessionSummary } from "./session.js";
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
import type { RecordToStore, ValkeySessions } from "./valkey-sessions.js";

const RENEW_MILLISECONDS = 1000;
const WAIT_MILLISECONDS = 50;

export interface ValkeySessionOptions extends SessionLimits {
  /** When what is changed is stored. */
  readonly save: Exclude<SavePolicy, "shutdown">;
  /** Unix seconds. */
  readonly now: () => number;
  /** Told of failures that nobody waits for. */
  readonly report: (error: Error) => void;
}

/**
 * Sessions that every replica with the same Valkey server can go on with. Whoever changes one holds its lock; states
 * used lately are in memory as well, and used from there as long as nobody else has changed them.
 */
export class ValkeySessionStore implements SessionStore {
  readonly #cache: RecordCache;

  constructor(
    private readonly valkey: Pick<ValkeySessions, keyof ValkeySessions>,
    private readonly options: ValkeySessionOptions,
  ) {
    this.#cache = new RecordCache(options.maxBytes);
  }

  list(): Promise<SessionSummary[]> {
    return this.valkey.list();
  }

  async create(id: string = randomUUID(), state?: SequenceState): Promise<Session> {
    requireId(id);
    const now = this.#now();
    const { maxSessions } = this.options;
    if ((await this.valkey.count(now)) >= maxSessions) throw tooMany(maxSessions);
    const record = newRecord(now, state);
    const stored = this.#toStore(record);
    if (!(await this.valkey.create(id, stored))) throw idTaken(id);
    this.#cache.keep(id, stored.version, record);
    return toSession(id, now, record);
  }

  async get(id: string): Promise<Session> {
    const known = await this.valkey.version(id);
    const cached = known && this.#cache.find(id, known.version);
    if (known && cached) return toSession(id, known.usedSeconds, cached);
    const stored = await this.valkey.read(id);
    if (stored === undefined) throw notFound(id);
    const record = decodeRecord(stored.record);
    this.#cache.keep(id, stored.version, record);
    return toSession(id, stored.usedSeconds, record);
  }

  async acquire(id: string, { takeOver = false, onWanted }: AcquireOptions = {}): Promise<AcquiredSession> {
    const token = randomUUID();
    await this.#lock(id, token, takeOver);
    const stopRenewing = this.#renew(id, token, onWanted);
    try {
      const { lastUsedSeconds } = await this.get(id);
      /** What is not stored yet. */
      let dirty: SessionRecord | undefined;
      let isOver = false;
      /** A change that is asked for before the end is made before it. */
      const turns = new SerialQueue();
      return {
        read: async () => (dirty ? toSession(id, lastUsedSeconds, dirty) : this.get(id)),
        commit: (change) =>
          turns.run(async () => {
            if (isOver) throw inUse(id);
            const next = changed(dirty ?? (await this.get(id)), change);
            if (this.options.save === "change") await this.#save(id, token, next);
            else dirty = next;
            return toSession(id, this.#now(), next);
          }),
        end: () =>
          turns.run(async () => {
            if (isOver) return;
            isOver = true;
            stopRenewing();
            try {
              if (dirty) await this.#save(id, token, dirty);
              await this.valkey.release(id, token);
            } catch (thrown) {
              this.options.report(thrown as Error);
            }
          }),
      };
    } catch (thrown) {
      stopRenewing();
      await this.valkey.release(id, token).catch((error: Error) => this.options.report(error));
      throw thrown;
    }
  }

  async delete(id: string): Promise<void> {
    const outcome = await this.valkey.delete(id);
    if (outcome === "missing") throw notFound(id);
    if (outcome === "held") throw inUse(id);
    this.#cache.drop(id);
  }

  async stats(): Promise<SessionStats> {
    const { isUp } = this.valkey;
    return {
      numSessions: isUp ? await this.valkey.count(this.#now()) : 0,
      numInMemory: this.#cache.length,
      memoryBytes: this.#cache.bytes,
      storedBytes: undefined,
      isUp,
    };
  }

  async close(): Promise<void> {
    this.valkey.close();
  }

  async #lock(id: string, token: string, takeOver: boolean): Promise<void> {
    const deadline = Date.now() + (takeOver ? TAKE_OVER_SECONDS * 1000 : 0);
    for (;;) {
      const outcome = await this.valkey.acquire(id, token, this.#now());
      if (outcome === "acquired") return;
      if (outcome === "missing") throw notFound(id);
      if (Date.now() >= deadline) throw inUse(id);
      await this.valkey.want(id);
      await sleep(WAIT_MILLISECONDS);
    }
  }

  /** Keeps the lock, and tells its holder once when somebody else wants it or has it. Returns what ends this. */
  #renew(id: string, token: string, onWanted: (() => void) | undefined): () => void {
    let isTold = false; // or nobody is left to be told
    const timer = setInterval(async () => {
      const outcome = await this.valkey.renew(id, token, this.#now()).catch((error: Error) => {
        this.options.report(error);
        return "held" as const; // not known; a lock that was lost shows when something is saved
      });
      if (outcome === "held" || isTold) return;
      isTold = true;
      onWanted?.();
    }, RENEW_MILLISECONDS);
    timer.unref();
    return () => {
      isTold = true;
      clearInterval(timer);
    };
  }

  async #save(id: string, token: string, record: SessionRecord): Promise<void> {
    const stored = this.#toStore(record);
    if (!(await this.valkey.save(id, token, stored, this.#now()))) throw inUse(id);
    this.#cache.keep(id, stored.version, record);
  }

  #toStore(record: SessionRecord): RecordToStore {
    return {
      content: encodeRecord(record),
      version: randomUUID(),
      length: lengthOf(record),
      createdSeconds: record.createdSeconds,
    };
  }

  #now(): number {
    return Math.floor(this.options.now());
  }
}

function toSession(id: string, lastUsedSeconds: number, record: SessionRecord): Session {
  const { createdSeconds, state, progress } = record;
  return { id, lastUsedSeconds, length: lengthOf(record), createdSeconds, state, progress };
}
