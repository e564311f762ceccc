import type { LibrarySearch } from "./library-search.js";
import type { SystemFiles } from "./system-files.js";

/** The driver's library: it comes with the driver, never with CUDA. */
export const DRIVER_LIBRARY = "libcuda.so.1";

/** What every Linux that runs Node has. */
const SYSTEM_LIBRARY = /^(ld-linux-x86-64|lib(c|m|dl|rt|pthread|util|stdc\+\+|gcc_s))\.so(\.\d+)?$/;

export interface ResolvedLibraries {
  /** Paths of all that the roots need, each behind what it needs itself; without the roots. */
  readonly paths: readonly string[];
  /** Names that were not found, each with the file that needs it; in order. */
  readonly missing: readonly MissingLibrary[];
}

export interface MissingLibrary {
  readonly name: string;
  readonly neededBy: string;
}

/** Follows DT_NEEDED from the files at `roots`; the system's own libraries are left out. */
export function resolveLibraries(
  roots: readonly string[],
  search: LibrarySearch,
  files: SystemFiles,
): ResolvedLibraries {
  const paths: string[] = [];
  const missing = new Map<string, MissingLibrary>();
  // The roots lie together and are loaded by path.
  const seen = new Set(roots.map((path) => files.readElf(path)?.soname ?? path));
  const visit = (file: string): void => {
    for (const name of files.readElf(file)?.needed ?? []) {
      if (seen.has(name) || SYSTEM_LIBRARY.test(name)) continue;
      seen.add(name);
      const path = search.find(name);
      if (path === undefined) {
        missing.set(name, { name, neededBy: file });
        continue;
      }
      visit(path);
      paths.push(path);
    }
  };
  for (const root of roots) visit(root);
  return { paths, missing: [...missing.values()] };
}
