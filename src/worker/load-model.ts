import { type Bundle, loadBundle } from "../bundle/bundle.js";
import { SLOTS_ON_CPU } from "../core/slots.js";
import { createDeviceRunner } from "../engine/device/device-model-runner.js";
import { planSlots } from "../engine/device/plan-slots.js";
import { createModelRunner } from "../engine/model-runner.js";
import type { ModelRunner, PatchRunner } from "../engine/model-runner-interface.js";
import { MblmError } from "../errors.js";
import { openCudaBackend } from "../runtime/cuda/cuda-backend.js";
import { findCuda } from "../runtime/cuda/find-cuda.js";
import type { DeviceBackend } from "../runtime/device.js";
import type { EngineOptions, RuntimeInfo } from "./engine-client-interface.js";

/** A model ready to run, and what it holds outside JavaScript's memory. */
export interface LoadedModel {
  readonly runner: ModelRunner | PatchRunner;
  readonly runtime: RuntimeInfo;
  dispose(): void;
}

/** @throws MblmError `bundle_invalid` or `runtime_unavailable` */
export async function loadModel(options: EngineOptions): Promise<LoadedModel> {
  const bundle = await loadBundle(options.bundleDir, { verifyChecksums: options.verifyChecksums });
  const opened = openDevice(bundle, options);
  return "backend" in opened
    ? loadOnDevice(bundle, options, opened.backend)
    : loadOnCpu(bundle, options, opened.reason);
}

/** The device that the settings ask for, or why the CPU is used; a reason is given only where a device was wanted. */
function openDevice(bundle: Bundle, { device }: EngineOptions): { backend: DeviceBackend } | { reason?: string } {
  if (device?.kind === "cpu") return {};
  const isRequired = device?.kind === "cuda";
  if (bundle.manifest.cuda === undefined) {
    const reason = `${bundle.info.id} has no graphs for CUDA (export it with --cuda)`;
    if (isRequired) throw new MblmError("runtime_unavailable", reason);
    return {};
  }
  const found = findCuda(device ?? { index: 0, cudaDir: "" });
  if ("reason" in found) {
    if (isRequired) throw new MblmError("runtime_unavailable", `CUDA cannot be used: ${found.reason}`);
    return { reason: `CUDA is not used: ${found.reason}` };
  }
  try {
    return { backend: openCudaBackend(found.libraries) };
  } catch (thrown) {
    const error = MblmError.from(thrown, "runtime_unavailable");
    if (isRequired) throw error;
    return { reason: `CUDA is not used: ${error.message}` };
  }
}

async function loadOnDevice(bundle: Bundle, options: EngineOptions, backend: DeviceBackend): Promise<LoadedModel> {
  try {
    const { numSlots, bytes } = planSlots(bundle, backend.device.memory(), options.numSlots);
    const runner = await createDeviceRunner(bundle, { numSlots, backend, bytes });
    return {
      runner,
      runtime: {
        backend: "cuda",
        version: backend.version,
        deviceName: backend.device.name,
        fallbackReason: undefined,
      },
      dispose() {
        runner.dispose();
        backend.dispose();
      },
    };
  } catch (thrown) {
    backend.dispose();
    throw thrown;
  }
}

async function loadOnCpu(bundle: Bundle, options: EngineOptions, reason: string | undefined): Promise<LoadedModel> {
  const { numSlots, numThreads } = options;
  // Only where it is used: a host with a device need not have the CPU's library.
  const { selectBackend } = await import("../runtime/select-backend.js");
  const { backend, fallbackReason } = selectBackend(options.backend);
  const runner = await createModelRunner(bundle, { numSlots: numSlots || SLOTS_ON_CPU, backend, numThreads });
  return {
    runner,
    runtime: { backend: backend.kind, version: backend.version, fallbackReason: fallbackReason ?? reason },
    dispose() {
      runner.dispose();
      backend.dispose();
    },
  };
}
