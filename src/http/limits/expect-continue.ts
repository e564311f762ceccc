import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

declare module "fastify" {
  interface FastifyContextConfig {
    /**
     * The route reads its body as a stream, itself: it tells a client that waits for it to send it, after checking what it can,
     * and holds it to limits of its own.
     */
    readonly streamsBody?: boolean;
  }
}

/** Requests whose client waits for a `100 Continue`. */
const waiting = new WeakSet<object>();

/**
 * Clients that ask first (`expect: 100-continue`) hear what is wrong with a request, its key included, before they send
 * its body.
 */
export function answerExpectations(server: FastifyInstance): void {
  server.server.on("checkContinue", (request, response) => {
    waiting.add(request);
    server.server.emit("request", request, response);
  });
  server.addHook("preParsing", async (request, reply) => {
    if (request.routeOptions.config.streamsBody !== true) continueBody(request, reply);
  });
  server.addHook("onSend", async (request, reply) => {
    // The client may send its body all the same, or not: only a new connection is clear.
    if (waiting.has(request.raw)) void reply.header("connection", "close");
  });
}

/** Tells a client that waits for it to send its body. */
export function continueBody(request: FastifyRequest, reply: FastifyReply): void {
  if (waiting.delete(request.raw)) reply.raw.writeContinue();
}
