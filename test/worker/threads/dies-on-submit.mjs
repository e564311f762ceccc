// A thread that starts well and dies at its first request.
import { parentPort } from "node:worker_threads";

parentPort.on("message", (message) => {
  if (message.type === "submit") {
    if (message.request.prompt.length === 0) process.exit(3);
    throw new Error("segmentation fault, so to speak");
  }
  if (message.type === "close") parentPort.close();
});
parentPort.postMessage({
  type: "ready",
  info: { id: "doomed" },
  runtime: { backend: "c-api", version: "0", fallbackReason: undefined },
});
