import { Worker } from "node:worker_threads";
import { MblmError } from "../errors.js";
import type { EngineClient, EngineOptions, StartEngineOptions } from "./engine-client-interface.js";
import { decodeError } from "./error-codec.js";
import type { ClientMessage, EngineMessage } from "./protocol.js";
import { ProtocolClient } from "./protocol-client.js";
import { locateThread } from "./thread-location.js";

/**
 * Loads a model in a worker thread of its own and resolves when it can serve.
 *
 * @throws MblmError `bundle_invalid`, `runtime_unavailable`, or `engine_failed` when the thread dies while loading
 */
export async function startEngine({ threadUrl, ...options }: StartEngineOptions): Promise<EngineClient> {
  const workerData: EngineOptions = options;
  const worker = new Worker(threadUrl ?? locateThread(), { workerData, name: "mblm-engine" });
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  return new Promise((resolve, reject) => {
    let client: ProtocolClient | undefined;
    const fail = (error: MblmError): void => {
      if (client === undefined) reject(error);
      else client.fail(error);
    };
    worker.on("message", (message: EngineMessage) => {
      if (client !== undefined) client.receive(message);
      else if (message.type === "failed") reject(decodeError(message.error));
      else if (message.type === "ready") {
        client = new ProtocolClient(
          message.info,
          message.runtime,
          (m) => post(worker, m),
          () => shutDown(worker, exited),
          message.numSlots,
          options.maxWaiting,
        );
        resolve(client);
      }
    });
    worker.once("error", (thrown) => fail(MblmError.from(thrown)));
    worker.once("exit", (code) => fail(new MblmError("engine_failed", `The engine thread ended (exit code ${code}).`)));
  });
}

/** A prompt is the client's own copy: it can change threads without another one. */
function post(worker: Worker, message: ClientMessage): void {
  const prompt = message.type === "submit" ? message.request.prompt : undefined;
  worker.postMessage(message, prompt === undefined ? [] : [prompt.buffer as ArrayBuffer]);
}

async function shutDown(worker: Worker, exited: Promise<void>): Promise<void> {
  post(worker, { type: "close" });
  await exited;
}
