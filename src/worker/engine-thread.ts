import { parentPort, workerData } from "node:worker_threads";
import { MblmError } from "../errors.js";
import { createHost } from "./create-host.js";
import type { EngineOptions } from "./engine-client-interface.js";
import { encodeError } from "./error-codec.js";
import { loadModel } from "./load-model.js";
import type { ClientMessage, EngineMessage } from "./protocol.js";

// Entry of the engine's worker thread. `workerData` holds EngineOptions.

const port = parentPort;
if (port === null) throw new Error("engine-thread is the entry of a worker thread; it cannot be run by itself.");

const post = (message: EngineMessage): void => port.postMessage(message);

try {
  const options = workerData as EngineOptions;
  const model = await loadModel(options);
  const host = createHost(model, options, post);
  port.on("message", (message: ClientMessage) => host.receive(message));
  void host.closed.then(() => port.close());
  const { info, numSlots } = model.runner;
  post({ type: "ready", info, runtime: model.runtime, numSlots });
} catch (thrown) {
  post({ type: "failed", error: encodeError(MblmError.from(thrown)) });
}
