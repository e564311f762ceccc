import { modelDirs } from "../config/load-config.js";
import type { Config } from "../config/schema.js";
import { parseDevice } from "../runtime/cuda/cuda-libraries.js";
import type { EngineOptions } from "../worker/engine-client-interface.js";

/** @param bundleDir one of the models to serve; the default one when it is left out */
export function engineOptions(config: Config, bundleDir: string = modelDirs(config)[0]!): EngineOptions {
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
