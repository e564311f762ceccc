import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MblmError } from "../errors.js";

/** Where the thread's entry may lie, seen from this module: same folder, from a bundled chunk, from an entry, from source. */
const CANDIDATES = [
  "./engine-thread.js",
  "./worker/engine-thread.js",
  "../worker/engine-thread.js",
  "../../dist/worker/engine-thread.js",
];

/** The compiled engine thread. @throws MblmError `runtime_unavailable` when the project is not built */
export function locateThread(): URL {
  const urls = CANDIDATES.map((path) => new URL(path, import.meta.url));
  const found = urls.find((url) => existsSync(fileURLToPath(url)));
  if (found === undefined) {
    throw new MblmError("runtime_unavailable", "The engine thread is not built; run `npm run build` first.");
  }
  return found;
}
