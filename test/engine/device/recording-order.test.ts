import { expect, it } from "vitest";
import { createDeviceRunner } from "../../../src/engine/device/device-model-runner.js";
import { PatchBatch } from "../../../src/engine/patch-batch.js";
import type { DeviceBackend } from "../../../src/runtime/device.js";
import { openHostDeviceBackend } from "../../../src/runtime/host-device-backend.js";
import { referenceLibrary } from "../../native-library.js";
import { loadTestBundle, randomIds } from "../../test-bundles.js";

interface Run {
  readonly graph: string;
  readonly isRecorded: boolean;
  /** Of the products that have a bias. */
  readonly rows: number;
}

/** The host as a device that notes what is run. */
function noting(runs: Run[]): DeviceBackend {
  const real = openHostDeviceBackend(referenceLibrary());
  return {
    version: real.version,
    device: real.device,
    numCaptures: 0,
    openSession(path, isTrial) {
      const session = real.openSession(path, isTrial);
      return {
        inputNames: session.inputNames,
        outputNames: session.outputNames,
        bind(ports, isRecorded) {
          const binding = session.bind(ports, isRecorded);
          const [rows] = (ports.output_row ?? ports.first)!.shape;
          const run = (): void => {
            runs.push({ graph: path, isRecorded, rows: rows! });
            binding.run();
          };
          return { run, dispose: () => binding.dispose() };
        },
        dispose: () => session.dispose(),
      };
    },
    dispose: () => real.dispose(),
  };
}

// ONNX Runtime frees the ones that a recorded graph spreads its biases with when the session runs with more rows.
it.each(["mamba2-transformer", "mamba2-transformer-transformer"])(
  "nothing of %s runs with more rows than ran before its first recording",
  async (name) => {
    const runs: Run[] = [];
    const numSlots = 11;
    const runner = await createDeviceRunner(await loadTestBundle(name), {
      numSlots,
      backend: noting(runs),
      maxPrefillSteps: 32,
      kernels: "onnx",
    });
    runner.score(0, randomIds(1, 32 * runner.patchLength + 1), 32, () => {});
    runner.prefill(1, randomIds(2, 40 * runner.patchLength), 32);
    const batch = new PatchBatch(numSlots, runner.patchLength);
    for (let round = 0; round < 3; round++) {
      batch.clear();
      for (let slot = 0; slot < numSlots; slot++) batch.addForced(slot, new Uint16Array(runner.patchLength));
      await runner.runPatches(batch);
    }
    const graphs = [...new Set(runs.map(({ graph }) => graph))];
    const most = graphs.map((graph) => {
      const own = runs.filter((run) => run.graph === graph);
      const first = own.findIndex(({ isRecorded }) => isRecorded);
      const rowsOf = (list: readonly Run[]): number => Math.max(...list.map(({ rows }) => rows));
      return { graph, ever: rowsOf(own), before: rowsOf(first < 0 ? own : own.slice(0, first + 1)) };
    });
    expect(most.length).toBeGreaterThanOrEqual(4);
    expect(most.some(({ ever }) => ever === 32)).toBe(true);
    expect(most.filter(({ ever, before }) => ever > before)).toEqual([]);
    runner.dispose();
  },
  60_000,
);
