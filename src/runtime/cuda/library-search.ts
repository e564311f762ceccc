import { dirname, join } from "node:path";
import { type Environment, folders } from "../../config/environment.js";
import { parseLoaderCache } from "./loader-cache.js";
import type { SystemFiles } from "./system-files.js";

const LOADER_CACHE = "/etc/ld.so.cache";

/** Where distributions, containers and WSL put the driver's library. */
const DRIVER_FOLDERS = [
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib64",
  "/usr/lib",
  "/usr/local/nvidia/lib64",
  "/usr/local/nvidia/lib",
  "/usr/lib/wsl/lib",
  "/run/opengl-driver/lib",
];

const PYTHON_PREFIXES = ["/usr", "/usr/local"];

/**
 * Finds libraries by name, in this order: the given folder, LD_LIBRARY_PATH, what the dynamic loader knows, CUDA's own
 * installations under /usr/local, NVIDIA's packages of the Pythons on PATH, the driver's usual folders.
 */
export class LibrarySearch {
  readonly #earlier: readonly string[];
  readonly #later: readonly string[];
  readonly #known: ReadonlyMap<string, string>;

  constructor(
    private readonly files: SystemFiles,
    environment: Environment,
    /** Searched before all others. */
    readonly ownFolder: string,
  ) {
    const cache = files.read(LOADER_CACHE);
    const libraries = cache === undefined ? [] : parseLoaderCache(cache);
    // The loader takes the first entry of a name.
    this.#known = new Map(libraries.reverse().map(({ name, path }) => [name, path]));
    this.#earlier = [ownFolder, ...folders(environment.LD_LIBRARY_PATH)];
    this.#later = [...this.#toolkitFolders(), ...this.#pythonFolders(environment), ...DRIVER_FOLDERS];
  }

  /** Absolute path of the library; undefined when it is nowhere. */
  find(name: string): string | undefined {
    return this.#in(this.#earlier, name) ?? this.#cached(name) ?? this.#in(this.#later, name);
  }

  #in(places: readonly string[], name: string): string | undefined {
    return places.map((folder) => join(folder, name)).find((path) => this.#isUsable(path));
  }

  #cached(name: string): string | undefined {
    const path = this.#known.get(name);
    return path !== undefined && this.#isUsable(path) ? path : undefined;
  }

  /** Some systems have 32-bit libraries of the same names. */
  #isUsable(path: string): boolean {
    return this.files.exists(path) && this.files.readElf(path)?.machine === "x86-64";
  }

  /** The newest first. */
  #toolkitFolders(): string[] {
    const versions = this.files.list("/usr/local").filter((name) => /^cuda(-\d+(\.\d+)*)?$/.test(name));
    versions.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
    return versions.flatMap((name) => [`/usr/local/${name}/lib64`, `/usr/local/${name}/targets/x86_64-linux/lib`]);
  }

  /** `nvidia/cu13/lib`, `nvidia/cublas/lib` …: where pip puts NVIDIA's packages. */
  #pythonFolders({ PATH, HOME, VIRTUAL_ENV, CONDA_PREFIX }: Environment): string[] {
    const onPath = folders(PATH).filter((folder) => this.files.exists(join(folder, "python3")));
    const local = HOME ? [join(HOME, ".local")] : [];
    const named = [VIRTUAL_ENV, CONDA_PREFIX].filter((prefix) => prefix !== undefined && prefix !== "") as string[];
    const prefixes = new Set([...named, ...onPath.map(dirname), ...local, ...PYTHON_PREFIXES]);
    return [...prefixes].flatMap((prefix) => this.#sitePackages(prefix)).flatMap((site) => this.#nvidiaFolders(site));
  }

  #sitePackages(prefix: string): string[] {
    const pythons = this.files.list(join(prefix, "lib")).filter((name) => /^python3(\.\d+)?$/.test(name));
    return pythons.flatMap((name) =>
      ["site-packages", "dist-packages"].map((packages) => join(prefix, "lib", name, packages)),
    );
  }

  #nvidiaFolders(site: string): string[] {
    return this.files.list(join(site, "nvidia")).map((name) => join(site, "nvidia", name, "lib"));
  }
}
