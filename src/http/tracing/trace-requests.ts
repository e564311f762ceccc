import type { IncomingMessage } from "node:http";
import type { FastifyInstance } from "fastify";
import type { RequestTrace } from "../../tracing/request-trace.js";
import type { Tracing } from "../../tracing/start-tracing.js";

declare module "fastify" {
  interface FastifyRequest {
    /** Undefined where requests are not traced. */
    trace: RequestTrace | undefined;
  }
}

/** What machines ask every few seconds. */
const UNTRACED = /^\/(?:(?:v2\/)?health(?:\/\w+)?|metrics)(?:\?|$)/;

/** Begins and ends the trace of every request but probes and scrapes, and has its log lines name it. To be added before all other hooks. */
export function traceRequests(server: FastifyInstance, tracing: Tracing): void {
  // The first thing that is done for a request is to make its logger.
  const traces = new WeakMap<IncomingMessage, RequestTrace>();
  server.setChildLoggerFactory((logger, bindings, options, raw) => {
    if (UNTRACED.test(raw.url!)) return logger.child(bindings, options);
    const trace = tracing.begin(describe(raw, String(bindings.reqId)), raw.headers);
    traces.set(raw, trace);
    return logger.child({ ...bindings, ...trace.ids }, options);
  });
  server.addHook("onRequest", async (request, { raw: response }) => {
    const trace = traces.get(request.raw);
    if (trace === undefined) return;
    request.trace = trace;
    const { url } = request.routeOptions;
    if (!request.is404 && url !== undefined) trace.route = url;
    // Whatever becomes of a response, it closes once.
    response.once("close", () =>
      trace.end(response.headersSent ? response.statusCode : undefined, response.writableFinished),
    );
  });
  server.addHook("preHandler", async (request) => {
    if (request.ws) request.trace?.upgrade();
  });
}

function describe(raw: IncomingMessage, id: string) {
  return {
    id,
    method: raw.method!,
    path: raw.url!.split("?", 1)[0]!,
    scheme: "encrypted" in raw.socket ? "https" : "http",
    clientAddress: raw.socket.remoteAddress,
    userAgent: raw.headers["user-agent"],
  };
}
