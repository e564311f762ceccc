// A real engine thread that dies a moment after it was told so.
import { parentPort } from "node:worker_threads";

parentPort.on("message", (message) => {
  if (message.type === "submit" && message.request.id.includes("kill")) setTimeout(() => process.exit(9), 100);
});
await import(process.env.REAL_ENGINE_THREAD);
