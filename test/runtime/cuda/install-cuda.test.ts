import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { findCuda } from "../../../src/runtime/cuda/find-cuda.js";
import { HttpClient } from "../../../src/runtime/cuda/http-client.js";
import { type InstallOptions, installCuda } from "../../../src/runtime/cuda/install-cuda.js";
import { describeState } from "../../../src/runtime/cuda/install-report.js";
import { LibrarySearch } from "../../../src/runtime/cuda/library-search.js";
import { hasText } from "../../../src/runtime/cuda/library-text.js";
import { type SystemFiles, systemFiles } from "../../../src/runtime/cuda/system-files.js";
import { scratchFolder } from "../../scratch-folder.js";
import { FileServer } from "./file-server.js";
import { type MadeUpLibrary, makeElf } from "./made-up-elf.js";
import { publish } from "./made-up-index.js";
import { makeWheel } from "./made-up-wheel.js";

const VERSION = "1.30.0";
const SHARED = "libonnxruntime_providers_shared.so";
const CUDA = "libonnxruntime_providers_cuda.so";
const NEEDED = ["libcublas.so.13", "libcudart.so.13", "libcuda.so.1", "libc.so.6"];

const providers = (changes: MadeUpLibrary = {}): Record<string, Buffer> => ({
  [SHARED]: makeElf({ soname: SHARED }),
  [CUDA]: makeElf({ needed: NEEDED, text: VERSION, ...changes }),
});

/** A wheel as PyPI's onnxruntime-gpu is made. */
function providerWheel(libraries = providers()): Buffer {
  const inside = Object.entries(libraries).map(([name, data]) => [`onnxruntime/capi/${name}`, data] as const);
  const other = {
    "onnxruntime/capi/": Buffer.alloc(0),
    "onnxruntime/capi/libonnxruntime.so.1.30.0": Buffer.from("core"),
  };
  return makeWheel({ ...other, ...Object.fromEntries(inside) });
}

const CUBLAS = makeWheel({
  "nvidia/cu13/lib/libcublas.so.13": makeElf({ soname: "libcublas.so.13", needed: ["libcublasLt.so.13"] }),
  "nvidia/cu13/lib/libcublasLt.so.13": makeElf({ soname: "libcublasLt.so.13" }),
  "nvidia/cu13/lib/libnvblas.so.13": makeElf({}),
});
const CUDART = makeWheel({ "nvidia/cu13/lib/libcudart.so.13": makeElf({ soname: "libcudart.so.13" }) });

let server: FileServer;
const http = new HttpClient({});
beforeAll(async () => {
  server = await FileServer.start();
});
afterAll(async () => {
  await http.close();
  await server.stop();
});

const ORT_WHEEL = "onnxruntime_gpu-1.30.0-cp312-cp312-manylinux_2_28_x86_64.whl";

let home: string;
let dir: string;
let core: string;
beforeEach(() => {
  home = scratchFolder("install-cuda");
  dir = join(home, "data", "cuda");
  core = join(home, "libonnxruntime.so.1");
  writeFileSync(core, makeElf({ soname: "libonnxruntime.so.1", text: VERSION }));
  server.pages.clear();
  server.requests.length = 0;
  publish(server, ORT_WHEEL, providerWheel());
  publish(server, "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl", CUBLAS);
  publish(server, "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl", CUDART);
});

/** This machine's file system with nothing of CUDA's but what is below the test's folder. */
const files: SystemFiles = {
  ...systemFiles,
  exists: (path) => path.startsWith(home) && systemFiles.exists(path),
  read: (path) => (path.startsWith(home) ? systemFiles.read(path) : undefined),
  list: (path) => (path.startsWith(home) ? systemFiles.list(path) : []),
};

function install(changes: Partial<InstallOptions> = {}, said: string[] = []) {
  const options: InstallOptions = {
    dir,
    indexUrl: `${server.url}/simple`,
    withCudaLibraries: false,
    coreLibrary: core,
    otherLibraries: [],
    ...changes,
  };
  return installCuda(options, { http, search: new LibrarySearch(files, {}, dir), say: (line) => said.push(line) });
}

function put(path: string, data: Buffer): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, data);
  return path;
}

describe("install-cuda", () => {
  it("fetches the provider, puts it beside the core library, and says what is missing", async () => {
    const state = await install();
    expect(readdirSync(dir).sort()).toEqual(["installed.json", "libonnxruntime.so.1", CUDA, SHARED].sort());
    expect(readFileSync(join(dir, CUDA)).equals(providers()[CUDA]!)).toBe(true);
    expect(readFileSync(join(dir, "libonnxruntime.so.1")).equals(readFileSync(core))).toBe(true);
    expect(state.missing.map(({ name }) => name)).toEqual(["libcublas.so.13", "libcudart.so.13"]);
    expect(state).toMatchObject({ found: [], driver: undefined });
  });

  it("copies the core library: a link would be the same library to the loader", async () => {
    await install();
    expect(statSync(join(dir, "libonnxruntime.so.1")).ino).not.toBe(statSync(core).ino);
  });

  it("fetches those of CUDA's libraries that are needed and missing, and what they need", async () => {
    put(join(dir, "libcudart.so.13"), makeElf({ soname: "libcudart.so.13" }));
    const state = await install({ withCudaLibraries: true });
    expect(state.missing).toEqual([]);
    expect(state.found.map((path) => path.slice(dir.length + 1))).toEqual([
      "libcublasLt.so.13",
      "libcublas.so.13",
      "libcudart.so.13",
    ]);
    expect(existsSync(join(dir, "libnvblas.so.13"))).toBe(false);
    expect(existsSync(join(dir, ".downloads"))).toBe(false);
    expect(server.requests.map(({ url }) => url).filter((url) => url!.includes("cuda-runtime"))).toEqual([]);
  });

  it("ends when a library is in no package", async () => {
    publish(server, ORT_WHEEL, providerWheel(providers({ needed: [...NEEDED, "libodd.so.1"] })));
    const state = await install({ withCudaLibraries: true });
    expect(state.missing.map(({ name }) => name)).toEqual(["libodd.so.1"]);
  });

  it("counts what the operators need, and finds the driver", async () => {
    const ops = put(join(home, "ops.so"), makeElf({ needed: ["libcurand.so.10"] }));
    put(join(dir, "libcuda.so.1"), makeElf({}));
    const state = await install({ otherLibraries: [ops] });
    expect(state.missing.map(({ name }) => name)).toContain("libcurand.so.10");
    expect(state.driver).toBe(join(dir, "libcuda.so.1"));
  });

  it("does nothing the second time", async () => {
    await install({ withCudaLibraries: true });
    server.requests.length = 0;
    const said: string[] = [];
    const state = await install({ withCudaLibraries: true }, said);
    expect(server.requests).toEqual([]);
    expect(state.missing).toEqual([]);
    expect(said).toEqual([`ONNX Runtime 1.30.0's CUDA provider is in ${dir} already (from ${ORT_WHEEL})`]);
  });

  it("installs again what was damaged or is of another version", async () => {
    await install();
    writeFileSync(join(dir, CUDA), "cut off");
    await install();
    expect(readFileSync(join(dir, CUDA)).equals(providers()[CUDA]!)).toBe(true);
    const record = readFileSync(join(dir, "installed.json"), "utf8");
    writeFileSync(join(dir, "installed.json"), record.replace(VERSION, "1.29.0"));
    server.requests.length = 0;
    await install();
    expect(server.requests).toHaveLength(2);
  });

  it("gives what the server finds", async () => {
    await install({ withCudaLibraries: true });
    put(join(dir, "libcuda.so.1"), makeElf({}));
    const ops = put(join(home, "ops.so"), makeElf({ needed: ["libcudart.so.13"] }));
    const system = { platform: "linux", arch: "x64", environment: {}, files, opsLibraries: [ops] };
    expect(findCuda({ index: 0, cudaDir: dir }, system)).toMatchObject({
      libraries: { coreLibrary: join(dir, "libonnxruntime.so.1") },
    });
  });
});

describe("install-cuda --from", () => {
  it("takes a wheel", async () => {
    const wheel = put(join(home, ORT_WHEEL), providerWheel());
    await install({ from: wheel });
    expect(readFileSync(join(dir, CUDA)).equals(providers()[CUDA]!)).toBe(true);
    expect(existsSync(wheel)).toBe(true);
    expect(server.requests).toEqual([]);
  });

  it.each(["", "onnxruntime/capi", "capi"])("takes a folder with the libraries in %j", async (below) => {
    for (const [name, data] of Object.entries(providers())) put(join(home, "given", below, name), data);
    await install({ from: join(home, "given") });
    expect(readdirSync(dir).sort()).toEqual(["installed.json", "libonnxruntime.so.1", CUDA, SHARED].sort());
  });

  it("replaces what is installed", async () => {
    await install();
    const other = providers({ needed: ["libcudart.so.13"] });
    for (const [name, data] of Object.entries(other)) put(join(home, "given", name), data);
    await install({ from: join(home, "given") });
    expect(readFileSync(join(dir, CUDA)).equals(other[CUDA]!)).toBe(true);
  });

  it.each<[string, () => string, RegExp]>([
    ["nothing", () => join(home, "nothing"), /--from: .*nothing is neither a wheel nor a folder/],
    [
      "an empty folder",
      () => mkdtempSync(join(home, "empty-")),
      /--from: there is no libonnxruntime_providers_cuda\.so in/,
    ],
    [
      "a file of another kind",
      () => put(join(home, "a.whl"), Buffer.from("not a zip archive")),
      /cannot unpack .*a\.whl/,
    ],
    [
      "a wheel without the libraries",
      () => put(join(home, "a.whl"), makeWheel({})),
      /has no libonnxruntime_providers_shared/,
    ],
    [
      "a wheel of another version",
      () => put(join(home, ORT_WHEEL.replace(VERSION, "1.29.0")), providerWheel()),
      /is of version 1\.29\.0; this server needs 1\.30\.0/,
    ],
    [
      "a library of another version",
      () => put(join(home, "a.whl"), providerWheel(providers({ text: "1.29.0" }))),
      /libonnxruntime_providers_cuda\.so is not of ONNX Runtime 1\.30\.0/,
    ],
    [
      "a build for CUDA 12",
      () => put(join(home, "a.whl"), providerWheel(providers({ needed: ["libcudart.so.12"] }))),
      /is built for CUDA 12; this server needs 13/,
    ],
    [
      "a build for another processor",
      () => put(join(home, "a.whl"), providerWheel(providers({ machine: 183 }))),
      /is not for x86-64/,
    ],
  ])("refuses %s, and leaves nothing that looks installed", async (_, make, message) => {
    await expect(install({ from: make() })).rejects.toThrow(message);
    expect(existsSync(join(dir, "installed.json"))).toBe(false);
  });

  it("refuses a core library of another version", async () => {
    writeFileSync(core, makeElf({ text: "1.31.0" }));
    await expect(install()).rejects.toThrow(/libonnxruntime\.so\.1 is not of ONNX Runtime 1\.30\.0/);
  });
});

describe("the report", () => {
  const state = {
    complaint: undefined,
    found: ["/lib/libcudart.so.13"],
    missing: [
      { name: "libcublas.so.13", neededBy: `/dir/${CUDA}` },
      { name: "libcublasLt.so.13", neededBy: `/dir/${CUDA}` },
    ],
    driver: undefined,
  };

  it("says what is there, what is missing and how to get it", () => {
    expect(describeState("/dir", state)).toBe(
      `ONNX Runtime's CUDA provider: /dir
  libcudart.so.13    /lib/libcudart.so.13
  libcublas.so.13    missing; libonnxruntime_providers_cuda.so needs it
  libcublasLt.so.13  missing; libonnxruntime_providers_cuda.so needs it
  libcuda.so.1       missing; it comes with NVIDIA's driver (version 580 or newer)

To get what is missing, one of:
  mblm-server install-cuda --with-cuda-libraries
  pip install nvidia-cublas==13.1.0.3
  CUDA 13 of your distribution or of NVIDIA's repository (packages cuda-libraries-13-0)
`,
    );
  });

  it("is short when all is there", () => {
    const complete = { ...state, missing: [], driver: "/lib/libcuda.so.1" };
    expect(describeState("/dir", complete)).toBe(
      "ONNX Runtime's CUDA provider: /dir\n  libcudart.so.13  /lib/libcudart.so.13\n  libcuda.so.1     /lib/libcuda.so.1\n",
    );
  });

  it("tells how to install what is not installed", () => {
    const nothing = { complaint: "there is no a.so in /dir", found: [], missing: [], driver: undefined };
    expect(describeState("/dir", nothing)).toContain("provider: there is no a.so in /dir\n");
    expect(describeState("/dir", nothing)).toContain("To install it: mblm-server install-cuda\n");
  });
});

describe("text in a library", () => {
  it("is found whole, also across the borders of what is read at a time", async () => {
    const path = join(home, "big");
    for (const at of [1, 2 ** 20 - 4, 2 ** 20 - 1, 2 ** 20, 3 * 2 ** 20 - 7]) {
      const data = Buffer.alloc(3 * 2 ** 20, "x");
      data.write(`\0${VERSION}\0`, at - 1, "latin1");
      writeFileSync(path, data);
      expect(await hasText(path, VERSION)).toBe(true);
      expect(await hasText(path, "1.30")).toBe(false);
      expect(await hasText(path, ".30.0")).toBe(false);
    }
  });
});
