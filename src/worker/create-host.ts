import { systemClock } from "../core/clock.js";
import { Engine } from "../engine/engine.js";
import type { EngineOptions } from "./engine-client-interface.js";
import { EngineHost } from "./engine-host.js";
import type { LoadedModel } from "./load-model.js";
import type { EngineMessage } from "./protocol.js";

/** An engine for a loaded model behind the protocol, the same in a worker thread and inline. */
export function createHost(
  model: LoadedModel,
  options: EngineOptions,
  post: (message: EngineMessage) => void,
): EngineHost {
  const { maxWaiting, maxQueuedPromptBytes, prefixCacheBytes } = options;
  return new EngineHost(
    (sink) => new Engine(model.runner, systemClock, { maxWaiting, maxQueuedPromptBytes, prefixCacheBytes }, sink),
    post,
    () => model.dispose(),
  );
}
