import type { FastifyError, FastifyRequest } from "fastify";
import { type ErrorCode, MblmError } from "../errors.js";
import type { ServerMetrics } from "../metrics/server-metrics.js";
import { accessOf } from "./access/route-scopes.js";

declare module "fastify" {
  interface FastifyRequest {
    /** Whether the engine has done anything for it. */
    hasWorked: boolean;
  }
}

/** The server has failed, or the client has gone: nobody was refused. */
const NO_REFUSALS: ReadonlySet<ErrorCode> = new Set(["aborted", "engine_failed"]);

/** Counts what a request for work was refused with; failures while working are counted where their events pass. */
export function countRefusal(metrics: ServerMetrics, request: FastifyRequest, error: FastifyError | MblmError): void {
  const access = accessOf(request.is404 ? undefined : request.routeOptions.url);
  if (request.hasWorked || (access !== "generate" && access !== "sessions")) return;
  if (error instanceof MblmError) {
    if (!NO_REFUSALS.has(error.code)) metrics.refused(error.code);
  } else if ((error.statusCode ?? 500) < 500) {
    metrics.refused("invalid_request");
  }
}

/** The same for something asked on a WebSocket: what cannot be kept was done. */
export function countStreamRefusal(metrics: ServerMetrics, { code }: MblmError): void {
  if (!NO_REFUSALS.has(code) && code !== "store_unavailable") metrics.refused(code);
}
