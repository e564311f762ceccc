import cors from "@fastify/cors";
import type { FastifyInstance } from "fastify";
import { MblmError } from "../../errors.js";

const EXPOSED = ["x-request-id", "retry-after", "x-should-retry"];
const PREFLIGHT_SECONDS = 600;

/**
 * Which web pages may use the server from a browser: those of the listed origins. Browsers themselves hold other pages off
 * all routes but WebSockets, whose origin is checked here.
 *
 * @param list origins separated by commas, `*` for all, "" for none but the server's own
 */
export async function guardOrigins(server: FastifyInstance, list: string): Promise<void> {
  const origins = list
    .split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  const isAny = origins.includes("*");
  server.addHook("onRequest", async ({ headers }) => {
    const { origin, upgrade, host } = headers;
    if (upgrade === undefined || origin === undefined || isAny || origins.includes(origin)) return;
    if (URL.canParse(origin) && new URL(origin).host === host) return;
    throw new MblmError("origin_refused", `Pages of ${origin} may not use this server (see --cors-origins).`);
  });
  if (origins.length === 0) return;
  // Any header may be sent: clients have headers of their own, and what a key may do no header changes.
  await server.register(cors, {
    origin: isAny ? "*" : origins,
    methods: ["GET", "HEAD", "POST", "PUT", "DELETE"],
    exposedHeaders: EXPOSED,
    maxAge: PREFLIGHT_SECONDS,
  });
}
