import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { createDeviceRunner, type DeviceModelRunner } from "../../../src/engine/device/device-model-runner.js";
import { fusedRows } from "../../../src/engine/device/stage-kernels.js";
import { ID_FAILED, PatchBatch } from "../../../src/engine/patch-batch.js";
import type { Device, DeviceBackend, DeviceBinding, DeviceSession, DeviceTensor } from "../../../src/runtime/device.js";
import { openHostDeviceBackend } from "../../../src/runtime/host-device-backend.js";
import { referenceLibrary } from "../../native-library.js";
import { loadTestBundle } from "../../test-bundles.js";
import { EngineHarness } from "../engine-harness.js";
import { makeRequest } from "../requests.js";

const bundle = await loadTestBundle("mamba2-transformer");
const recurrent = await loadTestBundle("mamba2-mamba2");
const transformers = await loadTestBundle("transformer-transformer");

type Way = "fused" | "onnx";
type Stage = "local" | "parent";

/** The host as a device whose kernels take as long as they are told to, and fail when they are told to. */
class Scripted {
  readonly backend: DeviceBackend;
  /** Seconds of a batch by rows. */
  readonly seconds: Record<Stage, Record<Way, (rows: number) => number>> = {
    local: { fused: () => 1, onnx: () => 2 },
    parent: { fused: () => 1, onnx: () => 2 },
  };
  readonly refusal: Partial<Record<Stage, string>> = {};
  /** Whose fused kernel gives up from now on. */
  failing: Stage | undefined;
  readonly runs: { stage: Stage; way: Way; rows: number }[] = [];
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
    const stage: Stage = session.inputNames.includes("forced") ? "local" : "parent";
    const way: Way = basename(path).includes("fused") ? "fused" : "onnx";
    return {
      inputNames: session.inputNames,
      outputNames: session.outputNames,
      bind: (ports, captures) => this.#script(stage, way, ports, session.bind(ports, captures)),
      dispose: () => session.dispose(),
    };
  }

  #script(
    stage: Stage,
    way: Way,
    ports: Readonly<Record<string, DeviceTensor>>,
    binding: DeviceBinding,
  ): DeviceBinding {
    const rows = (ports.rows ?? ports.slot)!.shape[0]!;
    return {
      run: () => {
        const refusal = this.refusal[stage];
        if (way === "fused" && refusal !== undefined) throw new Error(refusal);
        this.runs.push({ stage, way, rows });
        this.#clock += this.seconds[stage][way](rows);
        binding.run();
        if (way === "fused" && this.failing === stage) this.#fail(ports, rows);
      },
      dispose: () => binding.dispose(),
    };
  }

  /** What a kernel leaves that gave up. */
  #fail(ports: Readonly<Record<string, DeviceTensor>>, rows: number): void {
    const { device } = this.backend;
    const { ids_out: ids, child_contexts: contexts, scratch } = ports;
    if (ids !== undefined) device.upload(ids.address, new Int32Array(rows * ids.shape[1]!).fill(ID_FAILED));
    if (contexts !== undefined) {
      device.upload(contexts.address, new Float32Array(contexts.shape[0]! * contexts.shape[1]!).fill(Number.NaN));
    }
    device.upload(scratch!.address + BigInt(4 * ERROR_WORD), Int32Array.of(1));
  }
}

/** Index of the kernel's word for a failure, and a number of the work type (float32) that is none. */
const ERROR_WORD = 1;

const open = (device: Scripted, kernels?: "auto" | "fused" | "onnx", of = bundle): Promise<DeviceModelRunner> =>
  createDeviceRunner(of, { numSlots: 8, backend: device.backend, maxPrefillSteps: 16, kernels });

/** Which way a batch of so many rows goes; of the parent stage, its step behind a patch. */
async function wayOf(device: Scripted, runner: DeviceModelRunner, rows: number, stage: Stage = "local"): Promise<Way> {
  const batch = new PatchBatch(rows, runner.patchLength);
  for (let patch = 0; patch < 2; patch++) {
    batch.clear();
    for (let row = 0; row < rows; row++) batch.addForced(row, new Uint16Array(runner.patchLength));
    device.runs.length = 0;
    await runner.runPatches(batch);
  }
  for (let row = 0; row < rows; row++) runner.reset(row);
  const [run, ...others] = device.runs.filter((it) => it.stage === stage);
  expect(others).toHaveLength(0);
  return run!.way;
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
    device.seconds.local.fused = (rows) => rows;
    device.seconds.local.onnx = () => 2.5;
    device.seconds.parent.onnx = (rows) => 5 - rows;
    const runner = await open(device);
    expect(runner.kernels).toMatch(/local stage: the fused kernel for up to 2 rows.*1: 1000000 and 2500000/);
    expect(runner.kernels).toMatch(/stage 0: the fused kernel for up to 4 rows/);
    for (const rows of [1, 2]) expect(await wayOf(device, runner, rows)).toBe("fused");
    expect(await wayOf(device, runner, 3)).toBe("onnx");
    for (const rows of [1, 3, 4]) expect(await wayOf(device, runner, rows, "parent")).toBe("fused");
    expect(await wayOf(device, runner, 5, "parent")).toBe("onnx");
    runner.dispose();
  });

  it("auto: are one for each operator where the fused one is slower, cannot run, or has no graph", async () => {
    const slow = new Scripted();
    for (const stage of ["local", "parent"] as const) slow.seconds[stage].fused = () => 3;
    const slower = await open(slow);
    expect(slower.kernels.match(/up to 0 rows/g)).toHaveLength(2);
    for (const stage of ["local", "parent"] as const) expect(await wayOf(slow, slower, 1, stage)).toBe("onnx");
    slower.dispose();

    const small = new Scripted();
    small.refusal.local =
      "Non-zero status code returned while running LocalPatch_f16 node. Name:'LocalPatch_f16.0' Status Message: " +
      "LocalPatch_f16: LocalPatch: it needs 128 multiprocessors, the GPU has 108";
    small.refusal.parent =
      "Non-zero status code returned while running MambaStep_f32 node. Name:'MambaStep_f32.3' Status Message: " +
      "MambaStep_f32: MambaStep: its weights must be float16";
    const refused = await open(small);
    expect(refused.kernels).toContain("not the fused one: it needs 128 multiprocessors, the GPU has 108");
    expect(refused.kernels).toContain(
      "stage 0: one kernel for each operator (not the fused one: its weights must be float16)",
    );
    for (const stage of ["local", "parent"] as const) expect(await wayOf(small, refused, 1, stage)).toBe("onnx");
    refused.dispose();

    const without = await open(new Scripted(), "auto", recurrent);
    expect(without.kernels).toContain("the bundle has no graph for it");
    without.dispose();
  });

  it("fused: is taken for all batches that it can run, however slow; where it cannot, the start fails", async () => {
    const device = new Scripted();
    for (const stage of ["local", "parent"] as const) device.seconds[stage].fused = () => 3;
    const runner = await open(device, "fused");
    for (const stage of ["local", "parent"] as const) {
      for (const rows of [1, 5, 8]) expect(await wayOf(device, runner, rows, stage)).toBe("fused");
    }
    runner.dispose();

    for (const stage of ["local", "parent"] as const) {
      const small = new Scripted();
      small.refusal[stage] = "no";
      const said = { code: "runtime_unavailable", message: "kernels: fused cannot be used: no" };
      await expect(open(small, "fused")).rejects.toMatchObject(said);
    }
  });

  it("fused: a stage above the local one that has no fused kernel at all is no reason to refuse", async () => {
    const device = new Scripted();
    const runner = await open(device, "fused", transformers);
    expect(runner.kernels).toContain(
      "stage 0: one kernel for each operator (not the fused one: the bundle has no graph",
    );
    expect(await wayOf(device, runner, 1)).toBe("fused");
    runner.dispose();
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
    device.failing = "local";
    const failing = [submit(), submit()];
    await harness.runToEnd();
    for (const key of failing) {
      expect(harness.outputOf(key).last).toMatchObject({ type: "failed", code: "engine_failed" });
    }
    expect(runner.kernels).toContain("the fused one failed");
    const key = submit();
    await harness.runToEnd();
    expect(harness.outputOf(key).ids).toHaveLength(9);
    expect(device.runs.filter(({ stage }) => stage === "local").at(-1)!.way).toBe("onnx");
    runner.dispose();
  });

  it("a stage above the local one that gives up does the same, whatever was to be chosen", async () => {
    const device = new Scripted();
    const runner = await open(device);
    const harness = new EngineHarness(runner);
    const submit = () => harness.submit(makeRequest({ prompt: Uint16Array.of(1, 2, 3), stop: { maxNewBytes: 9 } }));
    device.failing = "parent";
    const key = submit();
    await harness.runToEnd();
    expect(harness.outputOf(key).last).toMatchObject({ type: "failed", code: "engine_failed" });
    expect(harness.outputOf(key).last).toMatchObject({ message: expect.stringContaining("stage 0") });
    expect(runner.kernels).toContain("stage 0: one kernel for each operator (the fused one failed)");
    expect(runner.deviceStats.fusedRows).toEqual([0, 8]);
    const after = submit();
    await harness.runToEnd();
    expect(harness.outputOf(after).ids).toHaveLength(9);
    expect(device.runs.filter(({ stage }) => stage === "parent").at(-1)!.way).toBe("onnx");
    runner.dispose();
  });

  it("a failure shows where nothing is chosen: in forced patches, before a prompt is read on and before it is scored", async () => {
    const ways: ((runner: DeviceModelRunner, ids: Uint16Array) => unknown)[] = [
      (runner, ids) => {
        const batch = new PatchBatch(1, runner.patchLength);
        batch.addForced(0, ids.subarray(0, runner.patchLength));
        return runner.runPatches(batch);
      },
      (runner, ids) => runner.prefill(0, ids, 4),
      (runner, ids) => runner.score(0, ids, 4, () => {}),
    ];
    for (const way of ways) {
      const device = new Scripted();
      const runner = await open(device);
      const ids = new Uint16Array(4 * runner.patchLength);
      const batch = new PatchBatch(1, runner.patchLength);
      batch.addForced(0, ids.subarray(0, runner.patchLength));
      runner.runPatches(batch);
      device.failing = "parent";
      expect(() => way(runner, ids)).toThrow(/fused kernel of stage 0 gave up/);
      expect(runner.kernels).toContain("stage 0: one kernel for each operator (the fused one failed)");
      runner.dispose();
    }
  });
});
