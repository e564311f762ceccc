import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Response } from "undici";
import { MblmError } from "../../errors.js";
import { type IndexFile, reasonOf } from "./find-wheel.js";
import { type HttpClient, withoutLogin } from "./http-client.js";

export interface DownloadOptions {
  /** Told of every piece: bytes that are there, and bytes in all where that is known. */
  readonly onProgress?: (received: number, total: number | undefined) => void;
  /** Before the second try; twice as long before each later one. */
  readonly retryMilliseconds?: number;
}

const MAX_TRIES = 5;

/** Worth another try: the connection broke, or the server was busy. */
class Interrupted extends Error {}

/**
 * Fetches a file to `path`, which appears only when it is complete and its SHA-256 is right. What an earlier call got before it
 * was interrupted is kept in `path.part`, and gone on with.
 *
 * @throws MblmError `runtime_unavailable` when the server refuses, keeps failing, or gives another file
 */
export async function download(http: HttpClient, file: IndexFile, path: string, options: DownloadOptions = {}) {
  const { retryMilliseconds = 1000 } = options;
  const part = `${path}.part`;
  const isOld = (await sizeOf(part)) > 0;
  for (let tries = 1; ; tries++) {
    try {
      await fetchRest(http, file, part, options);
      break;
    } catch (thrown) {
      if (!(thrown instanceof Interrupted)) throw thrown;
      if (tries === MAX_TRIES) throw unavailable(`cannot fetch ${withoutLogin(file.url)}: ${thrown.message}`, thrown);
      await sleep(retryMilliseconds * 2 ** (tries - 1));
    }
  }
  const sha256 = await hashFile(part);
  if (sha256 !== file.sha256) {
    await rm(part);
    // What was begun long ago may have been of another file.
    if (isOld) return download(http, file, path, options);
    throw unavailable(`${withoutLogin(file.url)} is not the file that the index names: its SHA-256 is ${sha256}`);
  }
  await rename(part, path);
}

async function fetchRest(http: HttpClient, file: IndexFile, part: string, { onProgress }: DownloadOptions) {
  let start = await sizeOf(part);
  if (file.size !== undefined && start === file.size) return;
  const response = await http
    .get(file.url, start > 0 ? { range: `bytes=${start}-`, "accept-encoding": "identity" } : {})
    .catch((cause: Error) => {
      throw new Interrupted(reasonOf(cause), { cause });
    });
  if (response.status === 416) {
    await rm(part); // more than there is
    throw new Interrupted("the server has fewer bytes than were fetched before");
  }
  if (response.status >= 500 || response.status === 429) throw new Interrupted(`the server answers ${response.status}`);
  if (!response.ok) throw unavailable(`${withoutLogin(file.url)} answers ${response.status}`);
  if (response.status !== 206) start = 0; // the whole file, whatever was asked for
  await write(response, part, start, file.size, onProgress);
}

/** Appends each piece as it comes, so that what was received before the connection broke is not lost. */
async function write(
  { body, headers }: Response,
  part: string,
  start: number,
  size: number | undefined,
  onProgress: DownloadOptions["onProgress"],
) {
  const length = headers.get("content-length");
  const total = size ?? (length === null ? undefined : start + Number(length));
  let received = start;
  const file = await writing(part, open(part, start > 0 ? "a" : "w"));
  try {
    for await (const piece of pieces(body)) {
      await writing(part, file.writeFile(piece));
      received += piece.length;
      onProgress?.(received, total);
    }
  } finally {
    await file.close();
  }
  if (total !== undefined && received < total)
    throw new Interrupted(`it broke off after ${received} of ${total} bytes`);
}

async function* pieces(body: Response["body"]): AsyncGenerator<Uint8Array, void, void> {
  try {
    yield* (body ?? []) as AsyncIterable<Uint8Array>;
  } catch (cause) {
    throw new Interrupted(reasonOf(cause as Error), { cause });
  }
}

/** Another try would not help where the disk is full or the folder cannot be written. */
async function writing<T>(part: string, work: Promise<T>): Promise<T> {
  return work.catch((cause: Error) => {
    throw unavailable(`cannot write ${part}: ${cause.message}`, cause);
  });
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

function unavailable(message: string, cause?: unknown): MblmError {
  return new MblmError("runtime_unavailable", message, cause === undefined ? {} : { cause });
}
