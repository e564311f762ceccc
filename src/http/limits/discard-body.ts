import type { IncomingMessage } from "node:http";

/** What is read of a body that nobody wants any more before the connection is given up. */
const MAX_BYTES = 64 << 20;
const MAX_TICKS = 300;
const TICK_MILLISECONDS = 100;

/**
 * Reads and forgets the rest of a body that was answered already, so that a client which reads only after it has sent
 * everything hears the answer, and the next request of the connection can come. Not without end.
 */
export function discardBody(request: IncomingMessage): void {
  const { socket } = request;
  if (request.complete || socket.destroyed) return;
  // Not `resume` alone: whoever was iterating over the body may still be letting go of it.
  request.on("data", () => {});
  request.resume();
  const { bytesRead } = socket;
  let numTicks = 0;
  const timer = setInterval(() => {
    const isOver = ++numTicks > MAX_TICKS || socket.bytesRead - bytesRead > MAX_BYTES;
    if (isOver && !request.complete) socket.destroy();
    if (isOver || request.complete || socket.destroyed) clearInterval(timer);
  }, TICK_MILLISECONDS);
  timer.unref();
}
