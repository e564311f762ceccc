import type { FastifyReply, FastifyRequest } from "fastify";
import type { Caller } from "../../access/key-ring.js";
import { MblmError } from "../../errors.js";
import { OwnedSessions } from "../../session/owned-sessions.js";
import type { SessionStore } from "../../session/session-store.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { withDeadline } from "../limits/deadline.js";
import { logged } from "../logged-engine.js";
import { traced } from "../tracing/traced-engine.js";
import { requireScope } from "./guard.js";
import { metered } from "./metered-engine.js";
import { noted } from "./noted-engine.js";

/** Of a request: who makes it, and what notes it. */
export type Requester = Pick<FastifyRequest, "caller" | "trace" | "log" | "deadline" | "hasWorked">;

/**
 * What a request sees: a model, which stays loaded until the response is closed, its key's sessions, and the engine within
 * its key's limits, traced and logged as asked for.
 *
 * @param model name; undefined or null for the default
 * @throws MblmError as `ModelRegistry.use`, and `aborted` when the client has gone meanwhile
 */
export async function contextOf(
  request: FastifyRequest,
  reply: FastifyReply,
  server: ServerContext,
  model: string | null | undefined,
): Promise<AppContext> {
  const { context, release } = await openContext(request, server, model);
  reply.raw.once("close", release);
  if (reply.raw.closed) {
    release();
    throw new MblmError("aborted", "The client has gone.");
  }
  return context;
}

/** As `contextOf`, for what is longer than a request: `release` ends it. */
export async function openContext(
  requester: Requester,
  server: ServerContext,
  name: string | null | undefined,
): Promise<{ context: AppContext; release: () => void }> {
  const { model, release } = await server.models.use(name, requester.deadline);
  const { models: _, ...shared } = server;
  const { fingerprint, chatTemplate, streamGate } = model;
  const { caller } = requester;
  const engine = engineOf(requester, model.engine, server);
  const context = {
    ...shared,
    engine,
    fingerprint,
    chatTemplate,
    streamGate,
    vision: model.vision?.on(engine, requester.deadline),
    lease: () => model.lease(),
    sessions: sessionsOf(caller, server),
    caller,
    metrics: server.metrics.of(engine.info.id),
  };
  return { context, release };
}

function engineOf(requester: Requester, engine: EngineClient, { config }: ServerContext): EngineClient {
  const { caller, trace, log, deadline } = requester;
  let mine = noted(engine, () => {
    requester.hasWorked = true;
  });
  if (deadline !== undefined) mine = withDeadline(mine, deadline);
  if (config.logPrompts) mine = logged(mine, log);
  if (caller !== undefined) mine = metered(mine, caller.limiter);
  return trace === undefined ? mine : traced(mine, trace);
}

/** The sessions that a key has; without one, all. */
export function sessionsOf(caller: Caller | undefined, { sessions }: ServerContext): SessionStore {
  if (caller === undefined) return sessions;
  const { key } = caller;
  const owned = new OwnedSessions(sessions, key.isPlain ? "" : key.name);
  if (!key.scopes.has("sessions")) return refusing(owned, () => requireScope(caller, "sessions"));
  return owned;
}

/** The model that a request means which names none: its session's, if there is one. What is wrong with that is said later. */
export async function modelOf(
  model: string | null | undefined,
  sessionId: string | null | undefined,
  sessions: SessionStore,
): Promise<string | undefined> {
  if (model !== null && model !== undefined) return model;
  if (sessionId === null || sessionId === undefined) return undefined;
  const session = await sessions.get(sessionId).catch(() => undefined);
  return session?.state?.model.id;
}

/** Every use throws what `refuse` throws. */
function refusing(sessions: SessionStore, refuse: () => void): SessionStore {
  return new Proxy(sessions, {
    get: () => async () => refuse(),
  });
}
