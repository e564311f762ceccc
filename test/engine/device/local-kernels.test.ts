import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { createDeviceRunner, type DeviceModelRunner } from "../../../src/engine/device/device-model-runner.js";
import { fusedRows } from "../../../src/engine/device/fused-patches.js";
import { ID_FAILED, PatchBatch } from "../../../src/engine/patch-batch.js";
import type { Device, DeviceBackend, DeviceBinding, DeviceSession, DeviceTensor } from "../../../src/runtime/device.js";
import { openHostDeviceBackend } from "../../../src/runtime/host-device-backend.js";
import { referenceLibrary } from "../../native-library.js";
import { loadTestBundle } from "../../test-bundles.js";
import { EngineHarness } from "../engine-harness.js";
import { makeRequest } from "../requests.js";

const bundle = await loadTestBundle("mamba2-transformer");
const recurrent = await loadTestBundle("mamba2-mamba2");

type Way = "fused" | "onnx";

/** The host as a device whose kernels take as long as they are told to, and fail when they are told to. */
class Scripted {
  readonly backend: DeviceBackend;
  /** Seconds of a patch by rows. */
  seconds: Record<Way, (rows: number) => number> = { fused: () => 1, onnx: () => 2 };
  refusal: string | undefined;
  failsNow = false;
  readonly runs: { way: Way; rows: number }[] = [];
  #clock = 0;
  readonly #marks = new Float64Array(8);

  constructor() {
    const real = openHostDeviceBackend(referenceLibrary());
    const { device: host } = real;
    const device: Device = {
      name: host.name,
      kind: host.kind,
      memory: () => host.memory(),
      allocate: (byteLength) => host.allocate(byteLength),
      upload: (address, data) => host.upload(address, data),
      download: (address, into) => host.download(address, into),
      copy: (to, from, byteLength) => host.copy(to, from, byteLength),
      clear: (address, byteLength) => host.clear(address, byteLength),
      synchronize: () => host.synchronize(),
      mark: (index) => {
        this.#marks[index] = this.#clock;
      },
      secondsBetween: (from, to) => this.#marks[to]! - this.#marks[from]!,
      dispose: () => host.dispose(),
    };
    this.backend = {
      version: real.version,
      device,
      numCaptures: 0,
      openSession: (path, isTrial) => this.#wrap(path, real.openSession(path, isTrial)),
      dispose: () => real.dispose(),
    };
  }

  #wrap(path: string, session: DeviceSession): DeviceSession {
    const isLocal = session.inputNames.includes("forced");
    const way: Way = basename(path).includes("fused") ? "fused" : "onnx";
    return {
      inputNames: session.inputNames,
      outputNames: session.outputNames,
      bind: (ports, captures) => {
        const binding = session.bind(ports, captures);
        return isLocal ? this.#script(way, ports, binding) : binding;
      },
      dispose: () => session.dispose(),
    };
  }

  #script(way: Way, ports: Readonly<Record<string, DeviceTensor>>, binding: DeviceBinding): DeviceBinding {
    const ids = ports.ids_out!;
    const rows = ids.shape[0]!;
    return {
      run: () => {
        if (way === "fused" && this.refusal !== undefined) throw new Error(this.refusal);
        this.runs.push({ way, rows });
        this.#clock += this.seconds[way](rows);
        binding.run();
        if (way === "fused" && this.failsNow) {
          this.backend.device.upload(ids.address, new Int32Array(rows * ids.shape[1]!).fill(ID_FAILED));
        }
      },
      dispose: () => binding.dispose(),
    };
  }
}

const open = (device: Scripted, kernels?: "auto" | "fused" | "onnx", of = bundle): Promise<DeviceModelRunner> =>
  createDeviceRunner(of, { numSlots: 8, backend: device.backend, maxPrefillSteps: 16, kernels });

/** Which way a batch of so many rows goes. */
async function wayOf(device: Scripted, runner: DeviceModelRunner, rows: number): Promise<Way> {
  const batch = new PatchBatch(rows, runner.patchLength);
  for (let row = 0; row < rows; row++) batch.addForced(row, new Uint16Array(runner.patchLength));
  device.runs.length = 0;
  await runner.runPatches(batch);
  expect(device.runs).toHaveLength(1);
  return device.runs[0]!.way;
}

describe("the kernels of the local stage", () => {
  it("are the fused one as long as it is not slower", () => {
    const at = (rows: number, fused: number, onnx: number) => ({ rows, fused, onnx });
    expect(fusedRows([at(1, 1, 2), at(2, 2, 2), at(4, 3, 2), at(8, 1, 2)])).toBe(2);
    expect(fusedRows([at(1, 3, 2), at(2, 1, 2)])).toBe(0);
    expect(fusedRows([at(1, 1, 2), at(2, 1, 2)])).toBe(2);
    expect(fusedRows([])).toBe(0);
  });

  it("auto: are measured at the start, up to the crossover", async () => {
    const device = new Scripted();
    device.seconds.fused = (rows) => rows;
    device.seconds.onnx = () => 2.5;
    const runner = await open(device);
    expect(runner.kernels).toMatch(/fused kernel for up to 2 rows.*1: 1000000 and 2500000/);
    expect(await wayOf(device, runner, 1)).toBe("fused");
    expect(await wayOf(device, runner, 2)).toBe("fused");
    expect(await wayOf(device, runner, 3)).toBe("onnx");
    runner.dispose();
  });

  it("auto: are one for each operator where the fused one is slower, cannot run, or has no graph", async () => {
    const slow = new Scripted();
    slow.seconds.fused = () => 3;
    const slower = await open(slow);
    expect(slower.kernels).toContain("up to 0 rows");
    expect(await wayOf(slow, slower, 1)).toBe("onnx");
    slower.dispose();

    const small = new Scripted();
    small.refusal =
      "Non-zero status code returned while running LocalPatch_f16 node. Name:'LocalPatch_f16.0' Status Message: " +
      "LocalPatch_f16: LocalPatch: it needs 128 multiprocessors, the GPU has 108";
    const refused = await open(small);
    expect(refused.kernels).toContain("not the fused one: it needs 128 multiprocessors, the GPU has 108");
    expect(await wayOf(small, refused, 1)).toBe("onnx");
    refused.dispose();

    const without = await open(new Scripted(), "auto", recurrent);
    expect(without.kernels).toContain("the bundle has no graph for it");
    without.dispose();
  });

  it("fused: is taken for all batches that it can run, however slow; where it cannot, the start fails", async () => {
    const device = new Scripted();
    device.seconds.fused = () => 3;
    const runner = await open(device, "fused");
    for (const rows of [1, 5, 8]) expect(await wayOf(device, runner, rows)).toBe("fused");
    runner.dispose();

    const small = new Scripted();
    small.refusal = "no";
    const said = { code: "runtime_unavailable", message: "kernels: fused cannot be used: no" };
    await expect(open(small, "fused")).rejects.toMatchObject(said);
  });

  it("onnx: are one for each operator, and nothing else is tried", async () => {
    const device = new Scripted();
    const runner = await open(device, "onnx");
    expect(device.runs.every(({ way }) => way === "onnx")).toBe(true);
    runner.dispose();
  });

  it("give the same bytes", async () => {
    const outputs = [];
    for (const kernels of ["fused", "onnx"] as const) {
      const runner = await open(new Scripted(), kernels);
      const harness = new EngineHarness(runner);
      const key = harness.submit(makeRequest({ prompt: Uint16Array.of(1, 2, 3), stop: { maxNewBytes: 20 } }));
      await harness.runToEnd();
      outputs.push(harness.outputOf(key).ids);
      runner.dispose();
    }
    expect(outputs[0]).toHaveLength(20);
    expect(outputs[0]).toEqual(outputs[1]);
  });

  it("a fused kernel that gives up fails the requests of its patch; those behind it are served without it", async () => {
    const device = new Scripted();
    const runner = await open(device);
    const harness = new EngineHarness(runner);
    const submit = () => harness.submit(makeRequest({ prompt: Uint16Array.of(1, 2, 3), stop: { maxNewBytes: 9 } }));
    device.failsNow = true;
    const failing = [submit(), submit()];
    await harness.runToEnd();
    for (const key of failing) {
      expect(harness.outputOf(key).last).toMatchObject({ type: "failed", code: "engine_failed" });
    }
    expect(runner.kernels).toContain("the fused one failed");
    const key = submit();
    await harness.runToEnd();
    expect(harness.outputOf(key).ids).toHaveLength(9);
    expect(device.runs.at(-1)!.way).toBe("onnx");
    runner.dispose();
  });
});
