import { createClient, RESP_TYPES } from "@redis/client";
import { MblmError } from "../errors.js";
import type { SessionSummary } from "./session.js";

/*
 * Keys, the braces making those of one session fall into the same slot of a cluster:
 *   PREFIX:{ID}:session  hash: record (see record-codec.ts), version, created, used, length; expires when unused
 *   PREFIX:{ID}:lock     token of the replica that holds the session; expires unless it is renewed
 *   PREFIX:{ID}:wanted   there while somebody waits for the holder to let go
 *   PREFIX:index         sorted set of ids by last use
 */

/** A lock without a session is that of one which has expired under its holder, who may still write it. */
const CREATE = `
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'length', ARGV[2], 'created', ARGV[3], 'used', ARGV[3], 'version', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1`;
/** Who waited may have said so after the holder before had let go: that is not said to this one. */
const ACQUIRE = `
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[1], 'used', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`;
/** 0: the lock is somebody else's. 1: renewed. 2: renewed, and somebody waits for it. */
const RENEW = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1 + redis.call('EXISTS', KEYS[3])`;
const SAVE = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2], 'length', ARGV[3], 'created', ARGV[4], 'used', ARGV[5], 'version', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1`;
const RELEASE = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
return 1`;
const DELETE = `
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('DEL', KEYS[1]) * 2 - 1`;

/** Milliseconds after which the lock of a replica that has gone is free. */
const LOCK_MILLISECONDS = 10_000;
const CONNECT_MILLISECONDS = 3_000;
const COMMAND_MILLISECONDS = 5_000;
const MAX_RECONNECT_MILLISECONDS = 2_000;

export interface StoredRecord {
  readonly record: Buffer;
  /** Differs after every change. */
  readonly version: string;
  readonly usedSeconds: number;
}

/** A record with what is told of it. */
export interface RecordToStore {
  readonly content: Buffer;
  readonly version: string;
  readonly length: number;
  readonly createdSeconds: number;
}

type Reply = number | string | Buffer | null | readonly Reply[];

/** The commands of a Valkey (or Redis) server that sessions need. Everything throws `store_unavailable` when it is gone. */
export class ValkeySessions {
  readonly #client;

  private constructor(
    url: string,
    private readonly prefix: string,
    private readonly ttlSeconds: number,
    onProblem: (error: Error) => void,
  ) {
    this.#client = createClient({
      url: url.replace(/^valkey/, "redis"),
      // A request that finds the server gone is told so at once instead of waiting for it.
      disableOfflineQueue: true,
      commandOptions: { timeout: COMMAND_MILLISECONDS },
      socket: {
        connectTimeout: CONNECT_MILLISECONDS,
        reconnectStrategy: (retries) => Math.min(50 * 2 ** retries, MAX_RECONNECT_MILLISECONDS),
      },
    });
    this.#client.on("error", onProblem);
  }

  /** @throws Error when the server cannot be reached; later it may come and go */
  static async connect(
    url: string,
    prefix: string,
    ttlSeconds: number,
    onProblem: (error: Error) => void,
  ): Promise<ValkeySessions> {
    const sessions = new ValkeySessions(url, prefix, ttlSeconds, onProblem);
    const client = sessions.#client;
    const failed = new Promise<never>((_, reject) => client.once("error", reject));
    try {
      await Promise.race([client.connect(), failed]);
    } catch (thrown) {
      client.destroy();
      throw thrown;
    }
    return sessions;
  }

  get isUp(): boolean {
    return this.#client.isReady;
  }

  close(): void {
    this.#client.destroy();
  }

  /** Whether it was made: false when the id is taken. */
  async create(id: string, { content, version, length, createdSeconds }: RecordToStore): Promise<boolean> {
    const values = [content, `${length}`, `${createdSeconds}`, version, this.#ttl];
    const isNew = (await this.#run(CREATE, id, values)) === 1;
    if (isNew) await this.#index(id, createdSeconds);
    return isNew;
  }

  async acquire(id: string, token: string, nowSeconds: number): Promise<"acquired" | "held" | "missing"> {
    const values = [token, `${LOCK_MILLISECONDS}`, `${nowSeconds}`, this.#ttl];
    const status = await this.#run(ACQUIRE, id, values);
    if (status === 1) await this.#index(id, nowSeconds);
    return status === 1 ? "acquired" : status === 0 ? "held" : "missing";
  }

  /** Keeps the lock; what is held is in use. */
  async renew(id: string, token: string, nowSeconds: number): Promise<"lost" | "held" | "wanted"> {
    const status = await this.#run(RENEW, id, [token, `${LOCK_MILLISECONDS}`, this.#ttl]);
    if (status !== 0) await this.#index(id, nowSeconds);
    return status === 0 ? "lost" : status === 1 ? "held" : "wanted";
  }

  /** Asks the holder to let go. */
  async want(id: string): Promise<void> {
    await this.#send(["SET", this.#keys(id)[2], "1", "PX", `${LOCK_MILLISECONDS}`]);
  }

  /** Whether it was stored: false when the lock is somebody else's. */
  async save(id: string, token: string, stored: RecordToStore, nowSeconds: number): Promise<boolean> {
    const { content, version, length, createdSeconds } = stored;
    const values = [token, content, `${length}`, `${createdSeconds}`, `${nowSeconds}`, version, this.#ttl];
    const isMine = (await this.#run(SAVE, id, values)) === 1;
    if (isMine) await this.#index(id, nowSeconds);
    return isMine;
  }

  async release(id: string, token: string): Promise<void> {
    await this.#run(RELEASE, id, [token]);
  }

  async delete(id: string): Promise<"deleted" | "held" | "missing"> {
    const status = await this.#run(DELETE, id, []);
    if (status === 1) await this.#unindex([id]);
    return status === 1 ? "deleted" : status === 0 ? "held" : "missing";
  }

  /** Undefined when there is no such session. */
  async version(id: string): Promise<{ readonly version: string; readonly usedSeconds: number } | undefined> {
    const [version, used] = (await this.#send(["HMGET", this.#keys(id)[0], "version", "used"])) as (Buffer | null)[];
    return version ? { version: version.toString(), usedSeconds: Number(used) } : undefined;
  }

  async read(id: string): Promise<StoredRecord | undefined> {
    const fields = ["record", "version", "used"];
    const [record, version, used] = (await this.#send(["HMGET", this.#keys(id)[0], ...fields])) as (Buffer | null)[];
    return record && version ? { record, version: version.toString(), usedSeconds: Number(used) } : undefined;
  }

  /** Those used longest ago first; what has expired is taken out of the index on the way. */
  async list(): Promise<SessionSummary[]> {
    const ids = ((await this.#send(["ZRANGE", this.#indexKey, "0", "-1"])) as Buffer[]).map(String);
    const fields = ["created", "used", "length"];
    const found = await Promise.all(ids.map((id) => this.#send(["HMGET", this.#keys(id)[0], ...fields])));
    const gone = ids.filter((_, i) => (found[i] as Reply[])[0] === null);
    if (gone.length > 0) await this.#unindex(gone);
    return ids.flatMap((id, i) => {
      const [createdSeconds, lastUsedSeconds, length] = (found[i] as Reply[]).map(Number) as [number, number, number];
      return gone.includes(id) ? [] : [{ id, createdSeconds, lastUsedSeconds, length }];
    });
  }

  async count(nowSeconds: number): Promise<number> {
    await this.#send(["ZREMRANGEBYSCORE", this.#indexKey, "-inf", `(${nowSeconds - this.ttlSeconds}`]);
    return (await this.#send(["ZCARD", this.#indexKey])) as number;
  }

  #run(script: string, id: string, values: readonly (string | Buffer)[]): Promise<Reply> {
    return this.#send(["EVAL", script, "3", ...this.#keys(id), ...values]);
  }

  #index(id: string, seconds: number): Promise<Reply> {
    return this.#send(["ZADD", this.#indexKey, `${seconds}`, id]);
  }

  /** Takes out what is gone; what was made again under the same id meanwhile stays, or is put back. */
  async #unindex(ids: readonly string[]): Promise<void> {
    await this.#send(["ZREM", this.#indexKey, ...ids]);
    for (const id of ids) {
      const used = (await this.#send(["HGET", this.#keys(id)[0], "used"])) as Buffer | null;
      if (used !== null) await this.#index(id, Number(used));
    }
  }

  async #send(command: readonly (string | Buffer)[]): Promise<Reply> {
    try {
      const typeMapping = { [RESP_TYPES.BLOB_STRING]: Buffer };
      return await this.#client.withTypeMapping(typeMapping).sendCommand<Reply>(command as string[]);
    } catch (thrown) {
      const { message } = thrown as Error;
      if (message.startsWith("OOM")) throw new MblmError("overloaded", "The store of sessions is full; delete one.");
      throw new MblmError("store_unavailable", `The store of sessions does not answer: ${message}`, { cause: thrown });
    }
  }

  #keys(id: string): [session: string, lock: string, wanted: string] {
    const base = `${this.prefix}:{${id}}`;
    return [`${base}:session`, `${base}:lock`, `${base}:wanted`];
  }

  get #indexKey(): string {
    return `${this.prefix}:index`;
  }

  /** Milliseconds. */
  get #ttl(): string {
    return `${Math.round(this.ttlSeconds * 1000)}`;
  }
}
