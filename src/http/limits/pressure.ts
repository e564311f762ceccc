import underPressure from "@fastify/under-pressure";
import type { FastifyInstance } from "fastify";
import { MblmError } from "../../errors.js";
import { accessOf } from "../access/route-scopes.js";

const SAMPLE_MILLISECONDS = 1000;

/**
 * Refuses work while the event loop is late, so that what is open goes on. Probes and scrapes are answered as long as there
 * is anybody to answer.
 *
 * @param maxSeconds mean lateness over a second; 0 for no limit
 */
export async function guardEventLoop(server: FastifyInstance, maxSeconds: number): Promise<void> {
  if (maxSeconds === 0) return;
  await server.register(underPressure, {
    maxEventLoopDelay: maxSeconds * 1000,
    sampleInterval: SAMPLE_MILLISECONDS,
    pressureHandler: (request) => {
      const access = accessOf(request.is404 ? undefined : request.routeOptions.url);
      if (access !== "generate" && access !== "sessions") return;
      throw new MblmError("overloaded", "The server cannot keep up; try again later.");
    },
  });
}
