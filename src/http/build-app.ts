import { randomUUID } from "node:crypto";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import Fastify, { type FastifyError, type FastifyInstance } from "fastify";
import { KeyRing } from "../access/key-ring.js";
import { modelDirs } from "../config/load-config.js";
import type { Config } from "../config/schema.js";
import { ConstraintCompiler } from "../constraints/constraint-compiler.js";
import { allOrProblems } from "../core/all-or-problems.js";
import { systemClock } from "../core/clock.js";
import { type ModelStats, ServerMetrics } from "../metrics/server-metrics.js";
import { checkSessionOptions, openSessionStore } from "../session/open-session-store.js";
import type { SessionStore } from "../session/session-store.js";
import { startTracing } from "../tracing/start-tracing.js";
import { closeRefusedUpgrades, guardRoutes } from "./access/guard.js";
import { guardOrigins } from "./access/origins.js";
import type { ServerContext } from "./app-context.js";
import { chatRoute } from "./chat/chat-route.js";
import { completionsRoute } from "./completions/completions-route.js";
import { countRefusal } from "./count-refusals.js";
import { errorBody, handleError, toOwnError } from "./error-response.js";
import { healthRoutes } from "./info/health-routes.js";
import { inferenceProtocolRoutes } from "./info/inference-protocol-routes.js";
import { infoRoutes } from "./info/info-routes.js";
import { Lifecycle } from "./lifecycle.js";
import { limitTime } from "./limits/deadline.js";
import { discardBody } from "./limits/discard-body.js";
import { answerExpectations } from "./limits/expect-continue.js";
import { guardEventLoop } from "./limits/pressure.js";
import { refuseWhenFull } from "./limits/room.js";
import { timeWholeBodies } from "./limits/whole-bodies.js";
import { noteMethods } from "./method-not-allowed.js";
import { ModelRegistry, type StartEngine } from "./models/model-registry.js";
import { repositoryRoutes } from "./models/repository-routes.js";
import { describeApi } from "./openapi.js";
import { refuseUnreadable } from "./refuse-unreadable.js";
import { scoreRoute } from "./score/score-route.js";
import { sessionRoutes } from "./sessions/session-routes.js";
import { SHARED_SCHEMAS } from "./shared-schemas.js";
import { streamRoute } from "./stream/stream-route.js";
import { readTls } from "./tls.js";
import { tokenizerRoutes } from "./tokenizer/tokenizer-routes.js";
import { traceRequests } from "./tracing/trace-requests.js";
import { uploadRoute } from "./uploads/upload-route.js";
import { validatorCompiler } from "./validators.js";
import { parseHosts } from "./vqa/remote-images.js";
import { vqaRoute } from "./vqa/vqa-route.js";

export interface App {
  readonly server: FastifyInstance;
  readonly lifecycle: Lifecycle;
  /** To be loaded; those that are, to be closed. */
  readonly models: ModelRegistry;
  /** API keys; empty where none is asked for. */
  readonly keys: KeyRing;
}

/** Compiled constraints kept for the requests that send them again. */
const MAX_CONSTRAINTS = 64;
const MAX_CONSTRAINT_BYTES = 64 * 2 ** 20;
const CHECK_CONNECTIONS_MILLISECONDS = 1000;
const REQUEST_ID = /^[\w.-]{1,128}$/;

/**
 * The HTTP application; it does not listen, and no model is loaded yet.
 *
 * @throws MblmError `config_invalid` or `bundle_invalid`, with a line for each problem
 */
export async function buildApp(config: Config, start: StartEngine, version: string): Promise<App> {
  const limits = {
    headersTimeout: config.headerSeconds * 1000,
    connectionsCheckingInterval: CHECK_CONNECTIONS_MILLISECONDS,
  };
  const reportTo = (what: string) => (err: Error) => server.log.error({ err }, what);
  const metrics = new ServerMetrics(
    version,
    (): Promise<ModelStats[]> => engineStats(models),
    () => sessions.stats(),
    config.vllmMetrics,
  );
  const serving = { config, metrics, clock: systemClock, version };
  // All that can be wrong with what the settings name is told at once, before anything is opened.
  const [models, keys, tls] = await allOrProblems(
    () => ModelRegistry.open(modelDirs(config), start, serving, reportTo("model")),
    async () => new KeyRing(config.apiKey, config.apiKeyFile, () => systemClock.now()),
    () => readTls(config),
    async () => checkSessionOptions({ dir: config.sessionDir, url: config.sessionUrl, save: config.sessionSave }),
    async () => parseHosts(config.allowedImageHosts),
  );
  const server = Fastify({
    logger: { level: config.logLevel },
    bodyLimit: config.maxBodyBytes,
    ...(tls === undefined ? { http: limits } : { https: { ...limits, ...tls } }),
    // Closing comes after the drain: whoever is still connected then is only keeping a socket open.
    forceCloseConnections: true,
    clientErrorHandler: refuseUnreadable,
    genReqId: (request) => {
      const given = request.headers["x-request-id"];
      return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
  for (const schema of SHARED_SCHEMAS) server.addSchema(schema);
  server.setValidatorCompiler(validatorCompiler(SHARED_SCHEMAS));
  // Response schemas are the contract's; tests hold the answers to them.
  server.setSerializerCompiler(() => (data) => JSON.stringify(data));
  const lifecycle = new Lifecycle();
  const sessions = await openSessions(config, reportTo("session store"));
  const context: ServerContext = {
    ...serving,
    lifecycle,
    constraints: new ConstraintCompiler(MAX_CONSTRAINTS, MAX_CONSTRAINT_BYTES),
    sessions,
    models,
  };

  server.decorateRequest("hasWorked", false);
  server.setErrorHandler((thrown, request, reply) => {
    const error = toOwnError(thrown as FastifyError, request);
    countRefusal(metrics, request, error);
    handleError(error, request, reply);
  });
  const tracing = await startTracing({
    endpoint: config.otlpEndpoint,
    version,
    clock: systemClock,
    report: (err) => server.log.warn({ err }, "tracing"),
  });
  server.decorateRequest("trace", undefined);
  if (tracing !== undefined) {
    traceRequests(server as unknown as FastifyInstance, tracing);
    server.addHook("onClose", () => tracing.close());
  }
  server.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
    reply.header("x-content-type-options", "nosniff");
    reply.raw.once("finish", () => discardBody(request.raw));
  });
  answerExpectations(server as unknown as FastifyInstance);
  timeWholeBodies(server as unknown as FastifyInstance, lifecycle, config.uploadIdleSeconds);
  closeRefusedUpgrades(server as unknown as FastifyInstance);
  await guardOrigins(server as unknown as FastifyInstance, config.corsOrigins);
  guardRoutes(server as unknown as FastifyInstance, keys);
  await guardEventLoop(server as unknown as FastifyInstance, config.maxEventLoopDelaySeconds);
  refuseWhenFull(server as unknown as FastifyInstance, lifecycle, models);
  limitTime(server as unknown as FastifyInstance, config.maxRequestSeconds);
  const methodsOf = noteMethods(server as unknown as FastifyInstance);
  server.addHook("onRequest", async (request, reply) => {
    if (!request.is404) return undefined;
    // Here rather than in a handler: whatever the body or its type is, it is not looked at.
    const methods = methodsOf(request.url.split("?", 1)[0]!);
    if (methods.length > 0) reply.header("allow", methods.join(", "));
    const problem = methods.length > 0 ? `is not allowed; ${methods.join(", ")} is` : "does not exist";
    return reply
      .code(methods.length > 0 ? 405 : 404)
      .send(errorBody("invalid_request", `${request.method} ${request.url} ${problem}`));
  });
  // The last thing of all: hooks of this kind run in reverse, so that streams have ended by then.
  server.addHook("onClose", () => sessions.close());
  await describeApi(server as unknown as FastifyInstance, version);
  await server.register(completionsRoute, { server: context });
  await server.register(uploadRoute, { server: context });
  await server.register(chatRoute, { server: context });
  await server.register(vqaRoute, { server: context });
  await server.register(scoreRoute, { server: context });
  await server.register(sessionRoutes, { server: context });
  await server.register(streamRoute, { server: context });
  await server.register(tokenizerRoutes, { server: context });
  await server.register(healthRoutes, { server: context });
  await server.register(infoRoutes, { server: context });
  await server.register(repositoryRoutes, { server: context });
  await server.register(inferenceProtocolRoutes, { server: context });
  return { server: server as unknown as FastifyInstance, lifecycle, models, keys };
}

/** Of the models that are there. */
async function engineStats(models: ModelRegistry): Promise<ModelStats[]> {
  const ready = models.loaded().filter(({ engine }) => engine.state === "ready");
  const stats = await Promise.allSettled(ready.map(({ engine }) => engine.stats()));
  return stats.flatMap((one, i) =>
    one.status === "fulfilled" ? { model: ready[i]!.engine.info.id, ...one.value } : [],
  );
}

function openSessions(config: Config, report: (error: Error) => void): Promise<SessionStore> {
  // A wall clock that jumps while the server runs must not make sessions old.
  const startedAt = Date.now() / 1000 - systemClock.now();
  return openSessionStore({
    maxSessions: config.maxSessions,
    maxBytes: config.sessionBytes,
    ttlSeconds: config.sessionTtlSeconds,
    dir: config.sessionDir,
    maxDiskBytes: config.sessionDiskBytes,
    url: config.sessionUrl,
    prefix: config.sessionPrefix,
    save: config.sessionSave,
    now: () => startedAt + systemClock.now(),
    report,
  });
}
