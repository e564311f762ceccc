import { createHost } from "./create-host.js";
import type { EngineClient, EngineOptions } from "./engine-client-interface.js";
import type { EngineHost } from "./engine-host.js";
import { loadModel } from "./load-model.js";
import { ProtocolClient } from "./protocol-client.js";

/**
 * Runs the engine in this thread: simpler where nothing else needs the event loop, such as one generation from the
 * command line.
 *
 * @throws MblmError `bundle_invalid` or `runtime_unavailable`
 */
export async function startInlineEngine(options: EngineOptions): Promise<EngineClient> {
  const model = await loadModel(options);
  const client: ProtocolClient = new ProtocolClient(
    model.runner.info,
    model.runtime,
    (message) => host.receive(message),
    () => {
      host.receive({ type: "close" });
      return host.closed;
    },
    model.runner.numSlots,
    options.maxWaiting,
  );
  const host: EngineHost = createHost(model, options, (message) => client.receive(message));
  return client;
}
