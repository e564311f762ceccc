import { type Bundle, loadBundle } from "../bundle/bundle.js";
import { SLOTS_ON_CPU } from "../core/slots.js";
import { createDeviceRunner } from "../engine/device/device-model-runner.js";
import { planSlots } from "../engine/device/plan-slots.js";
import { createModelRunner } from "../engine/model-runner.js";
import type { ModelRunner, PatchRunner } from "../engine/model-runner-interface.js";
import { MblmError } from "../errors.js";
import { openCudaBackend } from "../runtime/cuda/cuda-backend.js";
import { findCuda } from "../runtime/cuda/find-cuda.js";
import type { EngineOptions, RuntimeInfo } from "./engine-client-interface.js";

/** A model ready to run, and what it holds outside JavaScript's memory. */
export interface LoadedModel {
  readonly runner: ModelRunner | PatchRunner;
  readonly runtime: RuntimeInfo;
  dispose(): void;
}

/**
 * On the device that the settings ask for; `auto` takes the CPU where a device cannot be used, and says why.
 *
 * @throws MblmError `bundle_invalid`, `config_invalid` or `runtime_unavailable`
 */
export async function loadModel(options: EngineOptions): Promise<LoadedModel> {
  const bundle = await loadBundle(options.bundleDir, { verifyChecksums: options.verifyChecksums });
  const { cuda } = bundle.manifest;
  const kind = options.device?.kind ?? "auto";
  if (kind === "cpu" || (kind === "auto" && cuda === undefined)) return loadOnCpu(bundle, options, undefined);
  try {
    return await loadOnDevice(bundle, options);
  } catch (thrown) {
    const error = MblmError.from(thrown, "runtime_unavailable");
    if (kind === "cuda" || !isOfDevice(error) || cuda?.only === true) throw error;
    return loadOnCpu(bundle, options, `CUDA is not used: ${error.message}`);
  }
}

/** Whether the CPU may do where a device failed: it cannot be used, or the bundle's graphs for it are wrong. */
function isOfDevice({ code }: MblmError): boolean {
  return code === "runtime_unavailable" || code === "bundle_invalid";
}

async function loadOnDevice(bundle: Bundle, options: EngineOptions): Promise<LoadedModel> {
  if (bundle.manifest.cuda === undefined) {
    const advice = "export it with --cuda";
    throw new MblmError("runtime_unavailable", `${bundle.info.id} has no graphs for CUDA (${advice})`);
  }
  const found = findCuda(options.device ?? { index: 0, cudaDir: "" });
  if ("reason" in found) throw new MblmError("runtime_unavailable", found.reason);
  return madeWith(openCudaBackend(found.libraries), async (backend) => {
    const { numSlots, bytes } = planSlots(bundle, backend.device.memory(), options.numSlots);
    const runner = await createDeviceRunner(bundle, { numSlots, backend, bytes, kernels: options.kernels });
    const { version, device } = backend;
    const { kernels } = runner;
    return {
      runner,
      runtime: { backend: "cuda", version, deviceName: device.name, kernels, fallbackReason: undefined },
    };
  });
}

async function loadOnCpu(bundle: Bundle, options: EngineOptions, reason: string | undefined): Promise<LoadedModel> {
  if (bundle.manifest.cuda?.only === true) {
    throw new MblmError("runtime_unavailable", `${bundle.info.id} has graphs for CUDA only`);
  }
  const { numSlots, numThreads } = options;
  // Only where it is used: a host with a device need not have the CPU's library.
  const { selectBackend } = await import("../runtime/select-backend.js");
  const selected = selectBackend(options.backend);
  return madeWith(selected.backend, async (backend) => {
    const runner = await createModelRunner(bundle, { numSlots: numSlots || SLOTS_ON_CPU, backend, numThreads });
    const fallbackReason = selected.fallbackReason ?? reason;
    return { runner, runtime: { backend: backend.kind, version: backend.version, fallbackReason } };
  });
}

/** What is made of a backend, and is released with it; when the making fails, all that was made until then is. */
async function madeWith<B extends { dispose(): void }>(
  backend: B,
  make: (backend: B) => Promise<Omit<LoadedModel, "dispose">>,
): Promise<LoadedModel> {
  try {
    const made = await make(backend);
    return {
      ...made,
      dispose() {
        made.runner.dispose();
        backend.dispose();
      },
    };
  } catch (thrown) {
    backend.dispose();
    throw thrown;
  }
}
