import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Scope } from "../../access/api-key.js";
import type { Caller, KeyRing } from "../../access/key-ring.js";
import { MblmError } from "../../errors.js";
import { accessOf } from "./route-scopes.js";

declare module "fastify" {
  interface FastifyRequest {
    /** Whose key the request has shown; undefined where none is asked for. */
    caller: Caller | undefined;
  }
}

/** A browser's WebSocket has no headers of its own: there the key is one more subprotocol, which is never chosen. */
export const KEY_SUBPROTOCOL = "mblm.key.";
const REALM = 'Bearer realm="mblm-server"';

/** What is left of an upgrade that is refused belongs to no server any more: nobody else would close it. */
export function closeRefusedUpgrades(server: FastifyInstance): void {
  server.addHook("onRequest", async (request, reply) => {
    if (request.headers.upgrade === undefined) return;
    const { socket } = request.raw;
    reply.raw.once("finish", () => {
      if (reply.statusCode >= 400) socket.destroySoon();
    });
  });
}

/** Lets in who has a key, before anything of the body is read. To be added before all other hooks that answer. */
export function guardRoutes(server: FastifyInstance, keys: KeyRing): void {
  server.decorateRequest("caller", undefined);
  server.addHook("onRequest", async (request, reply) => {
    if (!keys.isUsed) return;
    const access = accessOf(request.is404 ? undefined : request.routeOptions.url);
    if (access === "open") return;
    const secret = shownSecret(request);
    const caller = secret === undefined ? undefined : keys.find(secret);
    if (caller === undefined) {
      reply.header("www-authenticate", secret === undefined ? REALM : `${REALM}, error="invalid_token"`);
      const problem = secret === undefined ? "An API key is required (authorization: Bearer …)." : "No such API key.";
      throw new MblmError("invalid_api_key", problem);
    }
    request.caller = caller;
    request.log = request.log.child({ key: caller.key.name });
    reply.log = request.log;
    try {
      if (access !== "any") requireScope(caller, access);
    } catch (thrown) {
      reply.header("www-authenticate", `${REALM}, error="insufficient_scope", scope="${access}"`);
      throw thrown;
    }
    if (access === "generate" || access === "sessions") caller.limiter.takeRequest();
  });
}

/** @throws MblmError `insufficient_scope` */
export function requireScope(caller: Caller | undefined, scope: Scope): void {
  if (caller === undefined || caller.key.scopes.has(scope)) return;
  throw new MblmError("insufficient_scope", `The key ${caller.key.name} does not have the scope ${scope}.`);
}

function shownSecret({ headers }: FastifyRequest): string | undefined {
  const bearer = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? "");
  if (bearer) return bearer[1];
  if (headers.authorization !== undefined) return "";
  const offered = (headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
  return offered.find((name) => name.startsWith(KEY_SUBPROTOCOL))?.slice(KEY_SUBPROTOCOL.length);
}
