import { existsSync } from "node:fs";
import { environment } from "../../config/environment.js";
import { packagedLibrary } from "../ort-library.js";
import { complainOfFolder } from "./cuda-folder.js";
import { OPS_LIBRARIES } from "./find-cuda.js";
import { PYPI } from "./find-wheel.js";
import { HttpClient } from "./http-client.js";
import { type CudaState, cudaState, type InstallOptions, type InstallTools, installCuda } from "./install-cuda.js";
import { LibrarySearch } from "./library-search.js";
import { systemFiles } from "./system-files.js";

type InstallerOptions = Pick<InstallOptions, "dir" | "from" | "withCudaLibraries"> &
  Partial<Pick<InstallOptions, "indexUrl">> &
  Pick<InstallTools, "say" | "onProgress">;

export interface InstallerState extends CudaState {
  /** Why the folder with the provider libraries cannot be used; undefined when it can. */
  readonly complaint: string | undefined;
}

export interface Installer {
  install(): Promise<InstallerState>;
  /** What there is; changes nothing. */
  check(): InstallerState;
  close(): Promise<void>;
}

/** The installer for this machine and package. */
export function openInstaller({ say, onProgress, indexUrl = PYPI, ...given }: InstallerOptions): Installer {
  const http = new HttpClient(environment);
  const options: InstallOptions = {
    ...given,
    indexUrl,
    coreLibrary: packagedLibrary(),
    otherLibraries: OPS_LIBRARIES.filter((path) => existsSync(path)),
  };
  const search = new LibrarySearch(systemFiles, environment, options.dir);
  const withComplaint = (state: CudaState): InstallerState => ({
    ...state,
    complaint: complainOfFolder(options.dir, systemFiles),
  });
  const tools: InstallTools = { http, search, say, ...(onProgress === undefined ? {} : { onProgress }) };
  return {
    install: async () => withComplaint(await installCuda(options, tools)),
    check: () => withComplaint(cudaState(options, search)),
    close: () => http.close(),
  };
}
