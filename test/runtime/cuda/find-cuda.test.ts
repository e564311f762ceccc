import { describe, expect, it } from "vitest";
import { RECORD } from "../../../src/runtime/cuda/cuda-folder.js";
import { parseDevice } from "../../../src/runtime/cuda/cuda-libraries.js";
import { type CudaSystem, findCuda } from "../../../src/runtime/cuda/find-cuda.js";
import { makeElf } from "./made-up-elf.js";
import { makeFiles } from "./made-up-files.js";

const DIR = "/home/me/.local/share/mblm-server/cuda-1.30.0";
const OPS = "/package/native/prebuilt/linux-x64/libmblm_ops_cuda.so";
const LIB = "/usr/local/cuda/lib64";

/** A machine that has everything. */
const COMPLETE: Readonly<Record<string, Buffer>> = {
  [OPS]: makeElf({ needed: ["libcudart.so.13"] }),
  [`${DIR}/libonnxruntime.so.1`]: makeElf({ soname: "libonnxruntime.so.1" }),
  [`${DIR}/libonnxruntime_providers_shared.so`]: makeElf({ soname: "libonnxruntime_providers_shared.so" }),
  [`${DIR}/libonnxruntime_providers_cuda.so`]: makeElf({
    needed: ["libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13", "libcuda.so.1", "libc.so.6"],
  }),
  [`${LIB}/libcublas.so.13`]: makeElf({ needed: ["libcublasLt.so.13"] }),
  [`${LIB}/libcublasLt.so.13`]: makeElf({}),
  [`${LIB}/libcudart.so.13`]: makeElf({}),
  "/usr/lib/x86_64-linux-gnu/libcuda.so.1": makeElf({}),
};

function find(changes: Partial<CudaSystem> = {}, device = "cuda:1", cudaDir = "", without: readonly string[] = []) {
  const contents = Object.fromEntries(
    Object.entries(COMPLETE).filter(([path]) => !without.some((name) => path.endsWith(`/${name}`))),
  );
  return findCuda(parseDevice(device, cudaDir), {
    platform: "linux",
    arch: "x64",
    environment: { HOME: "/home/me" },
    files: makeFiles(contents),
    opsLibraries: ["/elsewhere/libmblm_ops_cuda.so", OPS],
    ...changes,
  });
}

describe("finding CUDA", () => {
  it("gives the libraries in the order in which to load them", () => {
    expect(find()).toEqual({
      libraries: {
        coreLibrary: `${DIR}/libonnxruntime.so.1`,
        opsLibrary: OPS,
        cudaLibraries: [
          `${LIB}/libcublasLt.so.13`,
          `${LIB}/libcublas.so.13`,
          `${LIB}/libcudart.so.13`,
          "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        ],
        deviceIndex: 1,
      },
    });
  });

  it("looks into XDG_DATA_HOME, or the folder that is given", () => {
    expect(find({ environment: { HOME: "/nobody", XDG_DATA_HOME: "/home/me/.local/share" } })).toHaveProperty(
      "libraries",
    );
    expect(find({ environment: {} }, "cuda", DIR)).toMatchObject({ libraries: { deviceIndex: 0 } });
  });

  it.each([
    [
      "libonnxruntime_providers_cuda.so",
      /^there is no libonnxruntime_providers_cuda\.so in .*; run: mblm-server install-cuda$/,
    ],
    ["libonnxruntime_providers_shared.so", /^there is no libonnxruntime_providers_shared\.so in/],
    ["libonnxruntime.so.1", /^there is no libonnxruntime\.so\.1 in/],
    ["libmblm_ops_cuda.so", /^this package has no native\/prebuilt\/linux-x64\/libmblm_ops_cuda\.so$/],
    ["libcuda.so.1", /^libcuda\.so\.1 is missing: no NVIDIA driver is installed here$/],
    ["libcudart.so.13", /^libcudart\.so\.13 is missing; run: mblm-server install-cuda --with-cuda-libraries$/],
  ])("names %s when it is missing, in one line", (name, expected) => {
    expect(find({}, "cuda", "", [name])).toEqual({ reason: expect.stringMatching(expected) });
  });

  it("names all of CUDA's libraries that are missing, and the folder in the advice", () => {
    const missing = ["libcublasLt.so.13", "libcudart.so.13", "libcuda.so.1"];
    expect(find({}, "cuda", DIR, missing)).toEqual({
      reason: `libcublasLt.so.13, libcudart.so.13 are missing; run: mblm-server install-cuda --with-cuda-libraries --dir ${DIR}`,
    });
  });

  it.each([
    ["darwin", "arm64"],
    ["linux", "arm64"],
    ["win32", "x64"],
  ])("says that %s on %s will not do", (platform, arch) => {
    expect(find({ platform, arch })).toEqual({ reason: `CUDA needs Linux on x86-64; this is ${platform} on ${arch}` });
  });

  it("does not take another version's libraries", () => {
    const record = (version: string) => Buffer.from(JSON.stringify({ version, source: "a.whl", files: {} }));
    const withRecord = (data: Buffer) => find({ files: makeFiles({ ...COMPLETE, [`${DIR}/${RECORD}`]: data }) });
    expect(withRecord(record("1.29.0"))).toEqual({
      reason: `${DIR} holds libraries of ONNX Runtime 1.29.0, not 1.30.0; run: mblm-server install-cuda`,
    });
    expect(withRecord(record("1.30.0"))).toHaveProperty("libraries");
    expect(withRecord(Buffer.from("{"))).toHaveProperty("libraries");
  });
});

describe("parseDevice", () => {
  it.each([
    ["auto", { kind: "auto", index: 0 }],
    ["cpu", { kind: "cpu", index: 0 }],
    ["cuda", { kind: "cuda", index: 0 }],
    ["cuda:12", { kind: "cuda", index: 12 }],
  ])("%s", (device, expected) => {
    expect(parseDevice(device, "/dir")).toEqual({ ...expected, cudaDir: "/dir" });
  });
});
