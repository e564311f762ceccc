import type { Config } from "../config/schema.js";
import type { EngineOptions } from "../worker/engine-client-interface.js";

export function engineOptions(config: Config): EngineOptions {
  return {
    bundleDir: config.model,
    numSlots: config.slots,
    backend: config.backend,
    numThreads: config.threads,
    maxWaiting: config.maxWaiting,
    maxQueuedPromptBytes: config.maxQueuedPromptBytes,
    prefixCacheBytes: config.prefixCacheBytes,
    verifyChecksums: config.verifyChecksums,
  };
}
