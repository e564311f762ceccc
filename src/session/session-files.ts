import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const SUFFIX = ".session";
const TEMPORARY = ".tmp";

/** What is known of a stored session without reading it. */
export interface StoredSession {
  readonly id: string;
  /** Unix seconds of the last write. */
  readonly writtenSeconds: number;
  readonly numBytes: number;
}

/** What a store asks of the files; what is asked of one file is done in the order in which it is asked. */
export type SessionFolder = Pick<SessionFiles, "open" | "read" | "write" | "remove">;

/** Sessions as files of one folder, each replaced in one piece and on the disk before a write has ended. */
export class SessionFiles {
  /** The last thing asked of each file that is worked on: things are done in the order in which they are asked. */
  readonly #last = new Map<string, Promise<unknown>>();

  constructor(private readonly folder: string) {}

  /** Makes the folder, removes what unfinished writes have left, and lists what is there. */
  async open(): Promise<StoredSession[]> {
    await mkdir(this.folder, { recursive: true });
    const stored: StoredSession[] = [];
    for (const name of await readdir(this.folder)) {
      const path = join(this.folder, name);
      if (name.endsWith(TEMPORARY)) await rm(path, { force: true });
      if (!name.endsWith(SUFFIX)) continue;
      const { mtimeMs, size } = await stat(path);
      stored.push({ id: name.slice(0, -SUFFIX.length), writtenSeconds: mtimeMs / 1000, numBytes: size });
    }
    return stored;
  }

  read(id: string): Promise<Buffer> {
    return this.#next(id, () => readFile(this.#path(id)));
  }

  /** The new content or, whatever happens, the old one is there afterwards. */
  write(id: string, content: Buffer): Promise<void> {
    return this.#next(id, async () => {
      const temporary = this.#path(id) + TEMPORARY;
      try {
        await writeSynchronised(temporary, content);
        await rename(temporary, this.#path(id));
      } catch (thrown) {
        await rm(temporary, { force: true }).catch(() => {});
        throw thrown;
      }
      await this.#syncFolder();
    });
  }

  remove(id: string): Promise<void> {
    return this.#next(id, async () => {
      await rm(this.#path(id), { force: true });
      await this.#syncFolder();
    });
  }

  async #next<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(id) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#last.set(id, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(id) === mine) this.#last.delete(id);
    }
  }

  /** A rename is on the disk only when its folder is. */
  async #syncFolder(): Promise<void> {
    const folder = await open(this.folder, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  #path(id: string): string {
    return join(this.folder, id + SUFFIX);
  }
}

async function writeSynchronised(path: string, content: Buffer): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}
