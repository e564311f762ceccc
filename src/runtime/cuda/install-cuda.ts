import { constants, existsSync } from "node:fs";
import { copyFile, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { MblmError } from "../../errors.js";
import { PINNED_VERSION } from "../ort-library.js";
import {
  CORE_LIBRARY,
  CUDA_MAJOR,
  CUDA_PROVIDER,
  type InstallRecord,
  PROVIDERS,
  parseRecord,
  RECORD,
} from "./cuda-folder.js";
import { packageOf } from "./cuda-packages.js";
import { download } from "./download.js";
import { readElfFile } from "./elf-file.js";
import { findWheel, type IndexFile } from "./find-wheel.js";
import type { HttpClient } from "./http-client.js";
import type { LibrarySearch } from "./library-search.js";
import { hasText } from "./library-text.js";
import { DRIVER_LIBRARY, type MissingLibrary, resolveLibraries } from "./resolve-libraries.js";
import { systemFiles } from "./system-files.js";
import { unpackWheel } from "./wheel-file.js";
import { parseWheelName } from "./wheel-name.js";

const PROJECT = "onnxruntime-gpu";

export interface InstallOptions {
  /** Where the libraries go. */
  readonly dir: string;
  /** A wheel, or a folder with the provider libraries; fetched when left out. */
  readonly from?: string | undefined;
  readonly indexUrl: string;
  /** Whether CUDA's libraries that are nowhere else are fetched, too. */
  readonly withCudaLibraries: boolean;
  /** ONNX Runtime's core library of the same version. */
  readonly coreLibrary: string;
  /** Other libraries whose needs count: our operators. */
  readonly otherLibraries: readonly string[];
}

export interface InstallTools {
  readonly http: HttpClient;
  readonly search: LibrarySearch;
  /** Told of each step, a line each. */
  readonly say: (line: string) => void;
  /** Told of every piece of a download. */
  readonly onProgress?: (name: string, received: number, total: number | undefined) => void;
}

export interface CudaState {
  /** Paths of CUDA's libraries that are there. */
  readonly found: readonly string[];
  /** CUDA's libraries that are nowhere. */
  readonly missing: readonly MissingLibrary[];
  /** The driver's library. */
  readonly driver: string | undefined;
}

/** Where downloads are kept until they are unpacked. */
const DOWNLOADS = ".downloads";

/**
 * Puts ONNX Runtime's CUDA provider beside a copy of its core library, checks that they belong together, and looks for CUDA's
 * libraries. What is there already is not fetched again.
 *
 * @throws MblmError `runtime_unavailable` when something cannot be fetched or is not what it should be; `config_invalid` when
 *   `from` is neither a wheel nor a folder
 */
export async function installCuda(options: InstallOptions, tools: InstallTools): Promise<CudaState> {
  const { dir, withCudaLibraries } = options;
  await mkdir(dir, { recursive: true }).catch((cause: Error) => {
    throw new MblmError("config_invalid", `cannot make ${dir}: ${cause.message}`, { cause });
  });
  // A folder or wheel that is named is taken, whatever is there.
  const record = options.from === undefined ? await readInstalled(dir) : undefined;
  if (record === undefined) await installProviders(options, tools);
  else tools.say(`ONNX Runtime ${PINNED_VERSION}'s CUDA provider is in ${dir} already (from ${record.source})`);
  let state = cudaState(options, tools.search);
  // What a library needs itself shows only when it is there.
  for (let before = -1; withCudaLibraries && state.missing.length > 0 && before !== state.found.length; ) {
    before = state.found.length;
    for (const { project, version, names } of packagesOf(state.missing)) {
      const wheel = await fetchWheel(options, project, version, tools);
      await unpackWheel(wheel, (name) => (names.includes(name) ? join(dir, name) : undefined));
      await rm(wheel);
    }
    state = cudaState(options, tools.search);
  }
  await rm(join(dir, DOWNLOADS), { recursive: true, force: true });
  return state;
}

/** What there is of CUDA's libraries for what is in the folder. */
export function cudaState({ dir, otherLibraries }: InstallOptions, search: LibrarySearch): CudaState {
  const roots = [...PROVIDERS.map((name) => join(dir, name)), ...otherLibraries];
  const { paths, missing } = resolveLibraries(roots, search, systemFiles);
  const isDriver = (path: string): boolean => basename(path) === DRIVER_LIBRARY;
  return {
    found: paths.filter((path) => !isDriver(path)),
    missing: missing.filter(({ name }) => name !== DRIVER_LIBRARY),
    driver: paths.find(isDriver) ?? search.find(DRIVER_LIBRARY),
  };
}

/** The record of a folder that is complete, and of this version. */
async function readInstalled(dir: string): Promise<InstallRecord | undefined> {
  const record = parseRecord(systemFiles.read(join(dir, RECORD)));
  if (record === undefined || record.version !== PINNED_VERSION) return undefined;
  for (const name of [...PROVIDERS, CORE_LIBRARY]) {
    const size = await stat(join(dir, name)).then(
      (info) => info.size,
      () => undefined,
    );
    if (size === undefined || size !== record.files[name]) return undefined;
  }
  return record;
}

async function installProviders(options: InstallOptions, tools: InstallTools): Promise<void> {
  const { dir, from, coreLibrary } = options;
  await rm(join(dir, RECORD), { force: true });
  const source = from ?? (await fetchWheel(options, PROJECT, PINNED_VERSION, tools));
  const info = await stat(source).catch(() => undefined);
  if (info?.isDirectory()) await copyProviders(source, dir);
  else if (info?.isFile()) await unpackProviders(source, dir);
  else throw new MblmError("config_invalid", `--from: ${source} is neither a wheel nor a folder`);
  // A copy and not a link: two names of one file are one library to the dynamic loader, which would go on looking for
  // providers beside the name that it has seen first.
  await place(coreLibrary, join(dir, CORE_LIBRARY));
  for (const name of [CORE_LIBRARY, CUDA_PROVIDER]) await requireVersion(join(dir, name));
  requireCudaMajor(join(dir, CUDA_PROVIDER));
  await writeRecord(dir, from ?? basename(source));
  if (from === undefined) await rm(source);
  tools.say(`ONNX Runtime ${PINNED_VERSION}'s CUDA provider is in ${dir}`);
}

async function copyProviders(folder: string, dir: string): Promise<void> {
  // A folder of libraries, or one into which a wheel was unpacked or installed.
  const places = [folder, join(folder, "onnxruntime", "capi"), join(folder, "capi")];
  const found = places.find((place) => PROVIDERS.every((name) => existsSync(join(place, name))));
  if (found === undefined) throw new MblmError("config_invalid", `--from: there is no ${CUDA_PROVIDER} in ${folder}`);
  for (const name of PROVIDERS) await place(join(found, name), join(dir, name));
}

async function unpackProviders(wheel: string, dir: string): Promise<void> {
  const name = parseWheelName(basename(wheel));
  if (name !== undefined && name.version !== PINNED_VERSION) {
    throw unavailable(`${wheel} is of version ${name.version}; this server needs ${PINNED_VERSION}`);
  }
  const isProvider = (file: string): boolean => (PROVIDERS as readonly string[]).includes(file);
  const unpacked = await unpackWheel(wheel, (file) => (isProvider(file) ? join(dir, file) : undefined));
  const missing = PROVIDERS.find((file) => !unpacked.includes(file));
  if (missing !== undefined) throw unavailable(`${wheel} has no ${missing}: is it a wheel of ${PROJECT} for Linux?`);
}

/** Puts a file in place at once, so that no half file can be loaded. */
async function place(from: string, to: string): Promise<void> {
  const part = `${to}.part`;
  await copyFile(from, part, constants.COPYFILE_FICLONE);
  await rename(part, to);
}

async function requireVersion(path: string): Promise<void> {
  if (await hasText(path, PINNED_VERSION)) return;
  throw unavailable(`${path} is not of ONNX Runtime ${PINNED_VERSION}`);
}

/** Our operators are built for one version of CUDA, and two cannot be in one process. */
function requireCudaMajor(provider: string): void {
  const library = readElfFile(provider);
  if (library === undefined) throw unavailable(`${provider} is no library`);
  if (library.machine !== "x86-64") throw unavailable(`${provider} is not for x86-64`);
  const major = library.needed.map((name) => /^libcudart\.so\.(\d+)$/.exec(name)?.[1]).find((one) => one !== undefined);
  if (Number(major) === CUDA_MAJOR) return;
  throw unavailable(
    `${provider} is built for CUDA ${major ?? "of an unknown version"}; this server needs ${CUDA_MAJOR}`,
  );
}

async function writeRecord(dir: string, source: string): Promise<void> {
  const names = [...PROVIDERS, CORE_LIBRARY];
  const sizes = await Promise.all(names.map(async (name) => [name, (await stat(join(dir, name))).size] as const));
  const record: InstallRecord = { version: PINNED_VERSION, source, files: Object.fromEntries(sizes) };
  await writeFile(join(dir, RECORD), `${JSON.stringify(record, null, 2)}\n`);
}

/** The packages that have the libraries, each once, with those of its libraries that are wanted. */
function packagesOf(missing: readonly MissingLibrary[]) {
  const packages = new Map<string, { project: string; version: string; names: string[] }>();
  for (const { name } of missing) {
    const found = packageOf(name);
    if (found === undefined) continue;
    const wanted = packages.get(found.project) ?? { ...found, names: [] };
    wanted.names.push(name);
    packages.set(found.project, wanted);
  }
  return packages.values();
}

/** Path of the downloaded wheel. */
async function fetchWheel(
  { dir, indexUrl }: InstallOptions,
  project: string,
  version: string,
  { http, say, onProgress }: InstallTools,
): Promise<string> {
  const file: IndexFile = await findWheel(http, indexUrl, project, version);
  const folder = join(dir, DOWNLOADS);
  await mkdir(folder, { recursive: true });
  const path = join(folder, file.name);
  const size = file.size === undefined ? "" : ` (${Math.round(file.size / 1e6)} MB)`;
  say(`fetching ${file.name}${size}`);
  await download(http, file, path, { onProgress: (received, total) => onProgress?.(file.name, received, total) });
  return path;
}

function unavailable(message: string): MblmError {
  return new MblmError("runtime_unavailable", message);
}
