import websocket from "@fastify/websocket";
import type { FastifyInstance } from "fastify";
import type { WebSocket } from "ws";
import type { ServerContext } from "../app-context.js";
import { StreamConnection } from "./connection.js";
import { keepAlive } from "./keep-alive.js";

export const SUBPROTOCOL = "mblm.stream.v1";
export const MAX_FRAME_BYTES = 1 << 20;
const GOING_AWAY = 1001;

/** GET /v1/stream, a WebSocket: bytes both ways, see asyncapi.yaml. */
export async function streamRoute(app: FastifyInstance, { server }: { server: ServerContext }): Promise<void> {
  const sockets = new Set<WebSocket>();
  const closing = new Set<Promise<void>>();
  await app.register(websocket, {
    options: {
      maxPayload: MAX_FRAME_BYTES,
      handleProtocols: (offered: Set<string>) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    },
    preClose: (done: () => void) => {
      for (const socket of sockets) socket.close(GOING_AWAY, "The server is shutting down.");
      done();
    },
  });
  app.addHook("onClose", async () => {
    await Promise.all(closing);
  });
  app.get("/v1/stream", { websocket: true, schema: { hide: true } }, (socket, request) => {
    const connection = new StreamConnection(socket, server, request, `stream-${request.id}`);
    const stopPinging = keepAlive(socket, request.raw.socket, server.config.pingSeconds);
    const forgetEnding = server.lifecycle.endWith(() => connection.close());
    sockets.add(socket);
    socket.on("message", (data, isBinary) => connection.receive(data as Buffer, isBinary));
    socket.on("error", (error) => request.log.info({ err: error }, "websocket error"));
    socket.on("close", () => {
      stopPinging();
      forgetEnding();
      sockets.delete(socket);
      const closed = connection.close().finally(() => closing.delete(closed));
      closing.add(closed);
    });
  });
}
