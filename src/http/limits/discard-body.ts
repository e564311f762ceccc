import type { IncomingMessage } from "node:http";

/** What is read of a body that nobody wants any more before the connection is given up. */
const MAX_BYTES = 64 << 20;
const MAX_MILLISECONDS = 30_000;

/**
 * Reads and forgets the rest of a body that was answered already, so that a client which reads only after it has sent
 * everything hears the answer, and the next request of the connection can come. Not without end.
 */
export function discardBody(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  let left = MAX_BYTES;
  const giveUp = (): void => {
    request.socket.destroy();
  };
  const timer = setTimeout(giveUp, MAX_MILLISECONDS);
  request.once("close", () => clearTimeout(timer));
  request.once("end", () => clearTimeout(timer));
  request.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) giveUp();
  });
  request.resume();
}
