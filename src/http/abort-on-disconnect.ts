import { once } from "node:events";
import type { FastifyReply, FastifyRequest } from "fastify";

/** The response closes early exactly when the client has gone: its slots are freed in whatever phase they are. */
export function abortOnDisconnect(request: FastifyRequest, reply: FastifyReply, controller: AbortController): void {
  void once(reply.raw, "close", { signal: controller.signal }).then(
    () => {
      if (reply.raw.writableFinished) return;
      request.log.info("client disconnected");
      controller.abort();
    },
    () => {},
  );
}
