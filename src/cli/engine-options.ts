import type { Config } from "../config/schema.js";
import { parseDevice } from "../runtime/cuda/cuda-libraries.js";
import type { EngineOptions } from "../worker/engine-client-interface.js";

/** @param bundleDir one of the models to serve, or the only one */
export function engineOptions(config: Config, bundleDir: string = config.model): EngineOptions {
  return {
    bundleDir,
    numSlots: config.slots,
    device: parseDevice(config.device, config.cudaDir),
    kernels: config.kernels,
    backend: config.backend,
    numThreads: config.threads,
    maxWaiting: config.maxWaiting,
    maxQueuedPromptBytes: config.maxQueuedPromptBytes,
    prefixCacheBytes: config.prefixCacheBytes,
    verifyChecksums: config.verifyChecksums,
  };
}
