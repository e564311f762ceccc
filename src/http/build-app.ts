import { randomUUID } from "node:crypto";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import Fastify, { type FastifyInstance } from "fastify";
import type { Config } from "../config/schema.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import type { AppContext } from "./app-context.js";
import { completionsRoute } from "./completions-route.js";
import { errorBody, handleError } from "./error-response.js";
import { infoRoutes } from "./info-routes.js";
import { Lifecycle } from "./lifecycle.js";

export interface App {
  readonly server: FastifyInstance;
  readonly lifecycle: Lifecycle;
}

const REQUEST_ID = /^[\w.-]{1,128}$/;

/** The HTTP application; it does not listen. */
export async function buildApp(config: Config, engine: EngineClient, version: string): Promise<App> {
  const server = Fastify({
    logger: { level: config.logLevel },
    bodyLimit: config.maxBodyBytes,
    // Closing comes after the drain: whoever is still connected then is only keeping a socket open.
    forceCloseConnections: true,
    genReqId: (request) => {
      const given = request.headers["x-request-id"];
      return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
    },
    // Nothing is dropped or converted in silence: an unknown field or a number in quotes is an error.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, allErrors: false } },
  }).withTypeProvider<TypeBoxTypeProvider>();
  const lifecycle = new Lifecycle();
  const { info } = engine;
  const context: AppContext = {
    config,
    engine,
    lifecycle,
    version,
    fingerprint: `mblm-server-${version}-${info.id}-${info.precision}`,
  };

  server.setErrorHandler(handleError);
  server.setNotFoundHandler((request, reply) => {
    void reply.code(404).send(errorBody("invalid_request", `${request.method} ${request.url} does not exist`));
  });
  server.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
  });
  await server.register(infoRoutes, { context });
  await server.register(completionsRoute, { context });
  return { server: server as unknown as FastifyInstance, lifecycle };
}
