import type { FastifyRequest } from "fastify";
import { OwnedSessions } from "../../session/owned-sessions.js";
import type { SessionStore } from "../../session/session-store.js";
import type { AppContext } from "../app-context.js";
import { requireScope } from "./guard.js";
import { metered } from "./metered-engine.js";

/** The context as a request's key sees it: its own sessions, and the engine within its limits. */
export function contextOf(request: FastifyRequest, context: AppContext): AppContext {
  const { caller } = request;
  if (caller === undefined) return context;
  const { key, limiter } = caller;
  const engine = metered(context.engine, limiter);
  const owned = new OwnedSessions(context.sessions, key.isPlain ? "" : key.name);
  const sessions = key.scopes.has("sessions") ? owned : refusing(owned, () => requireScope(caller, "sessions"));
  return { ...context, engine, sessions, caller, vision: context.vision?.on(engine) };
}

/** Every use throws what `refuse` throws. */
function refusing(sessions: SessionStore, refuse: () => void): SessionStore {
  return new Proxy(sessions, {
    get: () => async () => refuse(),
  });
}
