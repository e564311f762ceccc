import type { Socket } from "node:net";
import type { WebSocket } from "ws";

/**
 * Pings. A client of which nothing has come since the last ping when the next is due is gone; one that the server holds back is
 * gone when it takes nothing either.
 *
 * @param raw what is below the WebSocket
 * @returns what ends this
 */
export function keepAlive(
  socket: Pick<WebSocket, "isPaused" | "ping" | "terminate">,
  raw: Pick<Socket, "bytesRead" | "bytesWritten" | "writableLength">,
  seconds: number,
): () => void {
  let before: { readonly read: number; readonly taken: number; readonly isPaused: boolean } | undefined;
  const timer = setInterval(() => {
    // What was written and waits here no longer: a ping at least, if the client's side takes anything.
    const taken = raw.bytesWritten - raw.writableLength;
    const now = { read: raw.bytesRead, taken, isPaused: socket.isPaused };
    if (before !== undefined) {
      const mayHaveSpoken = now.read > before.read || ((before.isPaused || now.isPaused) && now.taken > before.taken);
      if (!mayHaveSpoken) {
        socket.terminate();
        return;
      }
    }
    before = now;
    socket.ping();
  }, seconds * 1000);
  return () => clearInterval(timer);
}
