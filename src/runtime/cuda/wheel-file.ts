import { createWriteStream } from "node:fs";
import { rename } from "node:fs/promises";
import { basename } from "node:path";
import { pipeline } from "node:stream/promises";
import { openPromise, type ZipFile } from "yauzl";
import { MblmError } from "../../errors.js";

/**
 * Unpacks the files of a wheel that are wanted; each appears under its name only when it is complete.
 *
 * @param target the path for a file of this name (the last part of its path in the wheel); undefined for those that stay inside
 * @returns the names of those that were unpacked
 * @throws MblmError `runtime_unavailable` when the file is no wheel, or damaged
 */
export async function unpackWheel(path: string, target: (name: string) => string | undefined): Promise<string[]> {
  const unpacked: string[] = [];
  let wheel: ZipFile | undefined;
  try {
    wheel = await openPromise(path, { lazyEntries: true, autoClose: false });
    for await (const entry of wheel.eachEntry()) {
      const name = basename(entry.fileName);
      const to = entry.fileName.endsWith("/") ? undefined : target(name);
      if (to === undefined) continue;
      const part = `${to}.part`;
      await pipeline(await wheel.openReadStreamPromise(entry), createWriteStream(part, { mode: 0o644 }));
      await rename(part, to);
      unpacked.push(name);
    }
  } catch (cause) {
    throw new MblmError("runtime_unavailable", `cannot unpack ${path}: ${(cause as Error).message}`, { cause });
  } finally {
    wheel?.close();
  }
  return unpacked;
}
