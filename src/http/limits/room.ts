import type { FastifyInstance } from "fastify";
import { MblmError } from "../../errors.js";
import type { Lifecycle } from "../lifecycle.js";

declare module "fastify" {
  interface FastifyContextConfig {
    /** What the route asks of an engine is refused, not kept waiting, when the engine is full. */
    readonly needsRoom?: boolean;
  }
}

/**
 * Refuses, by its headers alone, what every model would refuse for want of a place: nothing of it is read, parsed or made then, so
 * that refusals cost next to nothing just when there are many, and a client that asks first keeps its body. (Which model it means
 * is only known later: where another one has room, the engine itself refuses.)
 */
export function refuseWhenFull(
  server: FastifyInstance,
  lifecycle: Lifecycle,
  models: { readonly isFull: boolean },
): void {
  server.addHook("onRequest", async ({ routeOptions }) => {
    if (routeOptions.config.needsRoom !== true) return;
    lifecycle.requireOpen();
    if (models.isFull) throw new MblmError("overloaded", "All slots and places to wait are taken; try again later.");
  });
}
