import { join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { OrtLibrary } from "../../src/runtime/ort-library.js";
import type { EngineOptions } from "../../src/worker/engine-client-interface.js";
import { loadModel } from "../../src/worker/load-model.js";
import { referenceLibrary } from "../native-library.js";
import { scratchFolder } from "../scratch-folder.js";
import { copyBundle, editManifest, fillDeviceStageWithNaN, fillStageWithNaN, fillWithNaN } from "../sign-bundle.js";

/** What is held outside JavaScript's memory, by kind: objects of ONNX Runtime, buffers of the device. */
const native = vi.hoisted(() => ({
  held: new Map<string, number>(),
  /** Buffers that the device still has memory for. */
  buffersLeft: Number.POSITIVE_INFINITY,
  count(kind: string, change: number): void {
    this.held.set(kind, (this.held.get(kind) ?? 0) + change);
  },
}));

vi.mock("../../src/runtime/ort-library.js", async (importOriginal) => {
  const original = await importOriginal<typeof import("../../src/runtime/ort-library.js")>();
  return {
    ...original,
    loadOrtLibrary(path?: string): OrtLibrary {
      const library = original.loadOrtLibrary(path);
      const api = Object.entries(library.api).map(([name, call]) => {
        const kind = /^Release(?!Status)(\w+)$/.exec(name)?.[1];
        if (kind === undefined) return [name, call];
        const release = (pointer: unknown): void => {
          native.count(kind, -1);
          call(pointer);
        };
        return [name, release];
      });
      return {
        ...library,
        api: Object.fromEntries(api),
        create(name, ...args) {
          const pointer = library.create(name, ...args);
          const kind = /^Create(?:Cpu)?(\w+)$/.exec(name)?.[1];
          if (kind !== undefined) native.count(kind.startsWith("Tensor") ? "Value" : kind, 1);
          return pointer;
        },
      };
    },
  };
});

// The host's memory, which HostDevice takes by malloc.
vi.mock("../../src/runtime/native-library.js", async (importOriginal) => {
  const { loadNativeLibrary } = await importOriginal<typeof import("../../src/runtime/native-library.js")>();
  const allocate = (call: (...args: unknown[]) => unknown, args: unknown[]): unknown => {
    if (native.buffersLeft-- <= 0) return 0n;
    native.count("buffer", 1);
    return call(...args);
  };
  const free = (call: (...args: unknown[]) => unknown, args: unknown[]): unknown => {
    native.count("buffer", -1);
    return call(...args);
  };
  return {
    loadNativeLibrary(path: string | null) {
      const library = loadNativeLibrary(path);
      if (path !== null) return library;
      return {
        func(...declared: [string]) {
          const call = library.func(...declared);
          const [declaration] = declared;
          const counted = / \*?(aligned_alloc|free)\(/.exec(declaration)?.[1];
          if (counted === undefined) return call;
          return (...args: unknown[]) => (counted === "free" ? free(call, args) : allocate(call, args));
        },
      };
    },
  };
});

// A GPU that is the host: its graphs run on the reference operators.
vi.mock("../../src/runtime/cuda/find-cuda.js", () => ({ findCuda: () => ({ libraries: {} }) }));
vi.mock("../../src/runtime/cuda/cuda-backend.js", async () => {
  const { openHostDeviceBackend } = await import("../../src/runtime/host-device-backend.js");
  let library: string | undefined;
  return {
    openCudaBackend() {
      library ??= referenceLibrary();
      return openHostDeviceBackend(library);
    },
  };
});

let dir: string;
beforeEach(() => {
  dir = copyBundle("mamba2-transformer", join(scratchFolder("failed-load"), "b"));
  native.buffersLeft = Number.POSITIVE_INFINITY;
  native.held.clear();
});

const load = (kind: "cpu" | "cuda" | "auto", changes: Partial<EngineOptions> = {}) =>
  loadModel({
    bundleDir: dir,
    numSlots: 2,
    device: { kind, index: 0, cudaDir: "" },
    kernels: "onnx",
    backend: "c-api",
    numThreads: 1,
    maxWaiting: 1,
    maxQueuedPromptBytes: 1,
    prefixCacheBytes: 0,
    verifyChecksums: true,
    ...changes,
  });

/** Kinds of which something is held. */
const heldKinds = (): string[] => [...native.held].filter(([, count]) => count !== 0).map(([kind]) => kind);
/** Kinds of which something was held at some time. */
const seenKinds = (): string[] => [...native.held.keys()].sort();

const ON_CPU = ["Env", "IoBinding", "MemoryInfo", "RunOptions", "Session", "SessionOptions", "Value"];

describe("a load that fails holds nothing", () => {
  it("nor does one that succeeds and ends, on a CPU or a device", async () => {
    for (const kind of ["cpu", "cuda"] as const) {
      const model = await load(kind);
      expect(heldKinds()).toEqual(expect.arrayContaining(["Env", "Session"]));
      model.dispose();
      expect(heldKinds()).toEqual([]);
    }
    expect(seenKinds()).toEqual([...ON_CPU, "buffer"]);
  });

  it("when the model gives no numbers on the CPU; the bundle is to blame", async () => {
    fillWithNaN(dir, "weights.bin");
    await expect(load("cpu")).rejects.toMatchObject({
      code: "bundle_invalid",
      message: "the self-test of mamba2-transformer failed: the model's logits are not finite",
    });
    expect(heldKinds()).toEqual([]);
    expect(seenKinds()).toEqual(ON_CPU);
  });

  it("when the second stage's graph does not fit the manifest, on the CPU", async () => {
    editManifest(dir, ({ stages }) => {
      stages[1]!.graph = stages[0]!.graph;
    });
    await expect(load("cpu")).rejects.toMatchObject({ code: "bundle_invalid" });
    expect(heldKinds()).toEqual([]);
    expect(seenKinds()).toContain("Session");
  });

  it("when the model gives no numbers on a device", async () => {
    fillWithNaN(dir, "cuda-weights.bin");
    await expect(load("cuda")).rejects.toMatchObject({
      code: "bundle_invalid",
      message: "the self-test of mamba2-transformer on the device failed: the model's logits are not finite",
    });
    expect(heldKinds()).toEqual([]);
    expect(seenKinds()).toEqual([...ON_CPU, "buffer"]);
  });

  it.each([
    ["cpu", 0],
    ["cpu", 1],
    ["cpu", 2],
    ["cuda", 0],
    ["cuda", 1],
    ["cuda", 2],
  ] as const)("when one stage of three gives no numbers: on %s, stage %i", async (kind, stage) => {
    dir = copyBundle("mamba2-transformer-transformer", join(scratchFolder("failed-load"), "b"));
    (kind === "cpu" ? fillStageWithNaN : fillDeviceStageWithNaN)(dir, stage);
    await expect(load(kind)).rejects.toMatchObject({
      code: "bundle_invalid",
      message: expect.stringMatching(/^the self-test of .* failed: the model's logits are not finite$/),
    });
    expect(heldKinds()).toEqual([]);
  });

  it("whichever buffer the device has no memory for", async () => {
    const model = await load("cuda");
    const numBuffers = native.held.get("buffer")!;
    model.dispose();
    expect(numBuffers).toBeGreaterThan(10);
    for (let left = 0; left < numBuffers; left++) {
      native.buffersLeft = left;
      await expect(load("cuda")).rejects.toMatchObject({ code: "runtime_unavailable" });
      expect(heldKinds()).toEqual([]);
    }
  });

  it("of the device when the CPU takes over, which says why", async () => {
    fillWithNaN(dir, "cuda-weights.bin");
    const model = await load("auto");
    expect(model.runtime).toMatchObject({
      backend: "c-api",
      fallbackReason: expect.stringMatching(/^CUDA is not used: the self-test of .* on the device failed/),
    });
    expect(heldKinds()).toEqual(expect.arrayContaining(["Session"]));
    expect(native.held.get("buffer")).toBe(0);
    model.dispose();
    expect(heldKinds()).toEqual([]);
  });
});
