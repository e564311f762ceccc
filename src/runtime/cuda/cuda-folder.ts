import { homedir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../../config/environment.js";
import { PINNED_VERSION } from "../ort-library.js";
import type { SystemFiles } from "./system-files.js";

/** ONNX Runtime's core library; it looks for providers beside itself. */
export const CORE_LIBRARY = "libonnxruntime.so.1";
export const SHARED_PROVIDER = "libonnxruntime_providers_shared.so";
export const CUDA_PROVIDER = "libonnxruntime_providers_cuda.so";
export const PROVIDERS = [SHARED_PROVIDER, CUDA_PROVIDER] as const;

/** The version of CUDA, in its library's names, that providers and operators are built for. */
export const CUDA_MAJOR = 13;

/** Says what was installed; written last, so that a folder without it is not complete. */
export const RECORD = "installed.json";

export interface InstallRecord {
  /** Version of ONNX Runtime. */
  readonly version: string;
  /** Where the provider libraries came from: a wheel's file name, or a folder. */
  readonly source: string;
  /** Bytes of each file that was placed. */
  readonly files: Readonly<Record<string, number>>;
}

/** Where install-cuda puts the libraries, and where the server looks for them, unless it is told. */
export function defaultCudaDir({ XDG_DATA_HOME, HOME }: Environment): string {
  const data = XDG_DATA_HOME || join(HOME || homedir(), ".local", "share");
  return join(data, "mblm-server", `cuda-${PINNED_VERSION}`);
}

/** What is written in a folder's record; undefined when there is none or it is damaged. */
export function parseRecord(data: Buffer | undefined): InstallRecord | undefined {
  try {
    const record = JSON.parse(data?.toString("utf8") ?? "") as Partial<InstallRecord>;
    const { version, source, files } = record;
    if (typeof version !== "string" || typeof source !== "string" || typeof files !== "object") return undefined;
    return { version, source, files: files as InstallRecord["files"] };
  } catch {
    return undefined;
  }
}

/** Why a folder cannot be used; undefined when it can. One that was filled by hand has no record. */
export function complainOfFolder(dir: string, files: SystemFiles): string | undefined {
  const absent = [CUDA_PROVIDER, ...PROVIDERS, CORE_LIBRARY].find((name) => !files.exists(join(dir, name)));
  if (absent !== undefined) return `there is no ${absent} in ${dir}`;
  const record = parseRecord(files.read(join(dir, RECORD)));
  if (record !== undefined && record.version !== PINNED_VERSION) {
    return `${dir} holds libraries of ONNX Runtime ${record.version}, not ${PINNED_VERSION}`;
  }
  return undefined;
}
