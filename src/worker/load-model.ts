import { loadBundle } from "../bundle/bundle.js";
import { SLOTS_ON_CPU } from "../core/slots.js";
import { createModelRunner } from "../engine/model-runner.js";
import type { ModelRunner } from "../engine/model-runner-interface.js";
import { selectBackend } from "../runtime/select-backend.js";
import type { EngineOptions, RuntimeInfo } from "./engine-client-interface.js";

/** A model ready to run, and what it holds outside JavaScript's memory. */
export interface LoadedModel {
  readonly runner: ModelRunner;
  readonly runtime: RuntimeInfo;
  dispose(): void;
}

/** @throws MblmError `bundle_invalid` or `runtime_unavailable` */
export async function loadModel(options: EngineOptions): Promise<LoadedModel> {
  const { bundleDir, numSlots, numThreads, verifyChecksums } = options;
  const bundle = await loadBundle(bundleDir, { verifyChecksums });
  const { backend, fallbackReason } = selectBackend(options.backend);
  const runner = await createModelRunner(bundle, { numSlots: numSlots || SLOTS_ON_CPU, backend, numThreads });
  return {
    runner,
    runtime: { backend: backend.kind, version: backend.version, fallbackReason },
    dispose() {
      runner.dispose();
      backend.dispose();
    },
  };
}
