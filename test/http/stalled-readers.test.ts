import { connect, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { startApp, type TestApp, untilIdle } from "./test-app.js";

const MODEL = "mamba2-transformer";

/** A client that sends a request and reads nothing. */
function deaf(app: TestApp, path: string, type: string, body: Buffer): { socket: Socket; closed: Promise<unknown> } {
  const socket = connect(Number(new URL(app.url).port), "127.0.0.1");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => {});
  socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n`);
  socket.write(body);
  return { socket, closed };
}

const endless = Buffer.from(JSON.stringify({ prompt: "a", max_tokens: 1e6, stream: true, n: 8, logprobs: 20 }));
const scored = Buffer.alloc(2 << 20, "some bytes");

describe.each([
  ["server-sent events", "/v1/completions", "application/json", endless],
  ["lines of numbers", "/v1/score?return=logprobs", "text/plain", scored],
] as const)("a client that does not read its %s", (_, path, type, body) => {
  it("is cut off, and holds nothing any more", async () => {
    const app = await startApp(MODEL, { readerIdleSeconds: 0.2 });
    const { socket, closed } = deaf(app, path, type, body);
    await expect.poll(() => app.lifecycle.numOpen).toBe(1);
    // As long as it takes to fill the buffers of two sockets.
    await expect.poll(() => app.lifecycle.numOpen, { timeout: 150_000 }).toBe(0);
    await untilIdle(app);
    socket.resume(); // what came until then is still there to be read, then the connection ends
    await closed;
    await app.stop();
  }, 180_000);

  it("does not hold up a shutdown", async () => {
    const app = await startApp(MODEL, { readerIdleSeconds: 0 });
    const { socket } = deaf(app, path, type, body);
    await expect.poll(async () => (await app.engine.stats()).promptBytesTotal).toBeGreaterThan(64);
    await app.lifecycle.drain(1);
    await app.stop();
    socket.destroy();
  });
});
