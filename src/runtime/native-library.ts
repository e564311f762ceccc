import koffi from "koffi";
import { MblmError } from "../errors.js";

export type NativeLibrary = ReturnType<typeof koffi.load>;

/** koffi closes a library when its object is collected, whatever still calls into it: those here stay for good. */
const loaded = new Map<string, NativeLibrary>();

/**
 * Loads a shared library for the rest of the process, its symbols visible to those loaded later.
 *
 * @param path or name; null: what the process has loaded anyway
 * @throws MblmError `runtime_unavailable`
 */
export function loadNativeLibrary(path: string | null): NativeLibrary {
  const key = path ?? "";
  const known = loaded.get(key);
  if (known !== undefined) return known;
  try {
    const library = koffi.load(path, { global: true });
    loaded.set(key, library);
    return library;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new MblmError("runtime_unavailable", `cannot load ${path}: ${message}`, { cause });
  }
}
