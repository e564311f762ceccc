import { randomUUID } from "node:crypto";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { SESSION_ID, type Session, type SessionSummary } from "./session.js";
import type { AcquiredSession, AcquireOptions, SessionStore } from "./session-store.js";
import { requireId } from "./session-store.js";

/** Between owner and id: neither has it, so that no id leads to what is another's. */
const SEPARATOR = "~";

/** Sessions of one owner ("" for nobody), under their own ids: what others have is not there. */
export class OwnedSessions implements SessionStore {
  readonly #prefix: string;

  /** @param owner letters, digits, `_` and `-`, or "" */
  constructor(
    private readonly all: SessionStore,
    owner: string,
  ) {
    this.#prefix = owner === "" ? "" : owner + SEPARATOR;
  }

  async list(): Promise<SessionSummary[]> {
    const mine = (await this.all.list()).filter(({ id }) => this.#isMine(id));
    return mine.map((session) => ({ ...session, id: this.#short(session.id) }));
  }

  async create(id: string = randomUUID(), state?: SequenceState): Promise<Session> {
    if (!SESSION_ID.test(id)) requireId(`${SEPARATOR}${id}`);
    return this.#tell(this.all.create(this.#prefix + id, state));
  }

  async get(id: string): Promise<Session> {
    return this.#tell(this.all.get(this.#stored(id)));
  }

  async acquire(id: string, options?: AcquireOptions): Promise<AcquiredSession> {
    const acquired = await this.#explain(this.all.acquire(this.#stored(id), options));
    return {
      read: () => this.#tell(acquired.read()),
      commit: (change) => this.#tell(acquired.commit(change)),
      end: () => acquired.end(),
    };
  }

  async delete(id: string): Promise<void> {
    await this.#explain(this.all.delete(this.#stored(id)));
  }

  stats() {
    return this.all.stats();
  }

  close(): Promise<void> {
    return this.all.close();
  }

  #isMine(id: string): boolean {
    return id.startsWith(this.#prefix) && !id.slice(this.#prefix.length).includes(SEPARATOR);
  }

  #short(id: string): string {
    return id.slice(this.#prefix.length);
  }

  #stored(id: string): string {
    if (SESSION_ID.test(id)) return this.#prefix + id;
    throw new MblmError("session_not_found", `There is no session ${id}.`, { field: "session_id" });
  }

  async #tell(session: Promise<Session>): Promise<Session> {
    const found = await this.#explain(session);
    return { ...found, id: this.#short(found.id) };
  }

  /** Errors speak of the id that was asked for. */
  async #explain<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (thrown) {
      if (!(thrown instanceof MblmError) || this.#prefix === "") throw thrown;
      throw new MblmError(thrown.code, thrown.message.replaceAll(this.#prefix, ""), {
        cause: thrown,
        ...(thrown.field === undefined ? {} : { field: thrown.field }),
      });
    }
  }
}
