import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const SUFFIX = ".session";
const TEMPORARY = ".tmp";

/** What is known of a stored session without reading it. */
export interface StoredSession {
  readonly id: string;
  /** Unix seconds of the last write. */
  readonly writtenSeconds: number;
}

/** Sessions as files of one folder, each replaced in one piece and on the disk before a write has ended. */
export class SessionFiles {
  constructor(private readonly folder: string) {}

  /** Makes the folder, removes what unfinished writes have left, and lists what is there. */
  async open(): Promise<StoredSession[]> {
    await mkdir(this.folder, { recursive: true });
    const stored: StoredSession[] = [];
    for (const name of await readdir(this.folder)) {
      const path = join(this.folder, name);
      if (name.endsWith(TEMPORARY)) await rm(path, { force: true });
      if (!name.endsWith(SUFFIX)) continue;
      stored.push({ id: name.slice(0, -SUFFIX.length), writtenSeconds: (await stat(path)).mtimeMs / 1000 });
    }
    return stored;
  }

  read(id: string): Promise<Buffer> {
    return readFile(this.#path(id));
  }

  /** The new content or, whatever happens, the old one is there afterwards. */
  async write(id: string, content: Buffer): Promise<void> {
    const temporary = this.#path(id) + TEMPORARY;
    try {
      await writeSynchronised(temporary, content);
      await rename(temporary, this.#path(id));
    } catch (thrown) {
      await rm(temporary, { force: true }).catch(() => {});
      throw thrown;
    }
    await this.#syncFolder();
  }

  async remove(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
    await this.#syncFolder();
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
