import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type ElfLibrary, readElfFile } from "./elf-file.js";

/** What the search for libraries asks of the file system; tests pass their own. */
export interface SystemFiles {
  exists(path: string): boolean;
  /** Names in a folder; empty when it cannot be read. */
  list(folder: string): string[];
  /** A file's bytes; undefined when it cannot be read. */
  read(path: string): Buffer | undefined;
  /** A shared library's dynamic section; undefined when the file is none. */
  readElf(path: string): ElfLibrary | undefined;
}

export const systemFiles: SystemFiles = {
  exists: existsSync,
  list: (folder) => attempt(() => readdirSync(folder)) ?? [],
  read: (path) => attempt(() => readFileSync(path)),
  readElf: (path) => attempt(() => readElfFile(path)),
};

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
