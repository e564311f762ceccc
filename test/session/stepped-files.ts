import type { SessionFolder, StoredSession } from "../../src/session/session-files.js";

type Kind = "read" | "write" | "remove";

/** A step that a test holds up. */
export interface Held {
  /** Resolves when the step is the file's next one. */
  readonly reached: Promise<void>;
  /** Lets it be done, or fail. */
  readonly go: (failure?: Error) => void;
}

/** Session files in memory, which do what is asked of each in order, and wait where a test wants it. */
export class SteppedFiles implements SessionFolder {
  readonly contents = new Map<string, Buffer>();
  /** What was done, in order. */
  readonly log: string[] = [];
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #held = new Map<string, () => Promise<void>>();

  get bytes(): number {
    return [...this.contents.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /** The next such step waits. */
  hold(kind: Kind, id: string): Held {
    let reach = (): void => {};
    let go: Held["go"] = () => {};
    const reached = new Promise<void>((resolve) => {
      reach = resolve;
    });
    const gate = new Promise<void>((resolve, reject) => {
      go = (failure) => (failure === undefined ? resolve() : reject(failure));
    });
    this.#held.set(`${kind} ${id}`, () => {
      reach();
      return gate;
    });
    return { reached, go };
  }

  async open(): Promise<StoredSession[]> {
    return [...this.contents].map(([id, { length }]) => ({ id, writtenSeconds: 1000, numBytes: length }));
  }

  read(id: string): Promise<Buffer> {
    return this.#next("read", id, () => {
      const content = this.contents.get(id);
      if (content === undefined) throw new Error(`no file of ${id}`);
      return content;
    });
  }

  write(id: string, content: Buffer): Promise<void> {
    return this.#next("write", id, () => void this.contents.set(id, content));
  }

  remove(id: string): Promise<void> {
    return this.#next("remove", id, () => void this.contents.delete(id));
  }

  #next<T>(kind: Kind, id: string, work: () => T): Promise<T> {
    const mine = (this.#last.get(id) ?? Promise.resolve()).then(async () => {
      const step = `${kind} ${id}`;
      const wait = this.#held.get(step);
      this.#held.delete(step);
      await wait?.();
      this.log.push(step);
      return work();
    });
    this.#last.set(
      id,
      mine.catch(() => {}),
    );
    return mine;
  }
}

/** Resolves when everything that can go on without a step of the test has done so. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
