import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Environment, environment } from "../../config/environment.js";
import { CORE_LIBRARY, complainOfFolder, defaultCudaDir, PROVIDERS } from "./cuda-folder.js";
import type { CudaLibraries, DeviceSetting } from "./cuda-libraries.js";
import { LibrarySearch } from "./library-search.js";
import { DRIVER_LIBRARY, type MissingLibrary, resolveLibraries } from "./resolve-libraries.js";
import { type SystemFiles, systemFiles } from "./system-files.js";

/** What there is to run on a CUDA device with, or the first reason why there is not enough, in one line. */
export type FoundCuda = { readonly libraries: CudaLibraries } | { readonly reason: string };

/** The machine that is looked at; this one when left out. */
export interface CudaSystem {
  readonly platform: string;
  readonly arch: string;
  readonly environment: Environment;
  readonly files: SystemFiles;
  readonly opsLibraries: readonly string[];
}

const OPS_LIBRARY = "native/prebuilt/linux-x64/libmblm_ops_cuda.so";

/** The package's root seen from this module: from source, from a bundled chunk in dist, from an entry below it. */
const ROOTS = ["../../..", "..", "../.."];

/** Where our operators' library may lie, the best first. */
export const OPS_LIBRARIES: readonly string[] = ROOTS.map((root) =>
  fileURLToPath(new URL(`${root}/${OPS_LIBRARY}`, import.meta.url)),
);

const thisSystem = (): CudaSystem => ({
  platform: process.platform,
  arch: process.arch,
  environment,
  files: systemFiles,
  opsLibraries: OPS_LIBRARIES,
});

/** Looks for everything that `--device cuda` needs. Nothing is loaded and no device is touched. */
export function findCuda(setting: Pick<DeviceSetting, "index" | "cudaDir">, system = thisSystem()): FoundCuda {
  const { platform, arch, files } = system;
  if (platform !== "linux" || arch !== "x64") {
    return { reason: `CUDA needs Linux on x86-64; this is ${platform} on ${arch}` };
  }
  const opsLibrary = system.opsLibraries.find((path) => files.exists(path));
  if (opsLibrary === undefined) return { reason: `this package has no ${OPS_LIBRARY}` };
  const dir = resolve(setting.cudaDir || defaultCudaDir(system.environment));
  const incomplete = complainOfFolder(dir, files);
  if (incomplete !== undefined) return { reason: `${incomplete}; run: mblm-server install-cuda${dirOption(setting)}` };
  const roots = [...PROVIDERS.map((name) => join(dir, name)), opsLibrary];
  const search = new LibrarySearch(files, system.environment, dir);
  const { paths, missing } = resolveLibraries(roots, search, files);
  if (missing.length > 0) return { reason: complainOfMissing(missing, dirOption(setting)) };
  return {
    libraries: {
      coreLibrary: join(dir, CORE_LIBRARY),
      opsLibrary,
      cudaLibraries: paths,
      deviceIndex: setting.index,
    },
  };
}

function complainOfMissing(missing: readonly MissingLibrary[], option: string): string {
  const cuda = missing.map(({ name }) => name).filter((name) => name !== DRIVER_LIBRARY);
  if (cuda.length === 0) return `${DRIVER_LIBRARY} is missing: no NVIDIA driver is installed here`;
  const are = cuda.length === 1 ? "is" : "are";
  return `${cuda.join(", ")} ${are} missing; run: mblm-server install-cuda --with-cuda-libraries${option}`;
}

function dirOption({ cudaDir }: Pick<DeviceSetting, "cudaDir">): string {
  return cudaDir === "" ? "" : ` --dir ${cudaDir}`;
}
