import type { FastifyInstance } from "fastify";
import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import { MblmError } from "../../errors.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { accessOf } from "../access/route-scopes.js";
import { engineWithSubmit } from "../engine-with-submit.js";

declare module "fastify" {
  interface FastifyRequest {
    /**
     * Aborted when the time of the request is over, with what to answer as its reason; undefined for one that has as much as it
     * takes.
     */
    deadline: AbortSignal | undefined;
  }
}

export const TIMEOUT_HEADER = "x-request-timeout-ms";
export const MAX_MILLISECONDS = 86_400_000;

/** Starts the clock of every request for work that is not a WebSocket: the server's limit, or less if the client says so. */
export function limitTime(server: FastifyInstance, maxSeconds: number): void {
  server.decorateRequest("deadline", undefined);
  server.addHook("onRequest", async (request, { raw: response }) => {
    const access = accessOf(request.is404 ? undefined : request.routeOptions.url);
    if (request.ws || (access !== "generate" && access !== "sessions")) return;
    const asked = readTimeout(request.headers[TIMEOUT_HEADER]);
    const limit = maxSeconds === 0 ? Number.POSITIVE_INFINITY : maxSeconds * 1000;
    const milliseconds = Math.min(asked ?? Number.POSITIVE_INFINITY, limit);
    if (milliseconds === Number.POSITIVE_INFINITY) return;
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(deadlineExceeded()), milliseconds);
    response.once("close", () => clearTimeout(timer));
    request.deadline = controller.signal;
  });
}

/** The engine, for a request with a deadline: its sequences fail with `deadline_exceeded` then, wherever they are. */
export function withDeadline(engine: EngineClient, deadline: AbortSignal): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    if (deadline.aborted) throw deadlineExceeded();
    for await (const event of engine.submit(request, AbortSignal.any([signal, deadline]))) {
      const isCut = event.type === "finished" && event.reason === "abort" && deadline.aborted && !signal.aborted;
      if (isCut) {
        const { code, message } = deadlineExceeded();
        yield { type: "failed", code, message };
      } else {
        yield event;
      }
    }
  }
  return engineWithSubmit(engine, submit);
}

/** The error of a request whose time is over. */
function deadlineExceeded(): MblmError {
  return new MblmError("deadline_exceeded", "The time of the request is over.");
}

function readTimeout(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const value = /^\d{1,8}$/.test(String(header)) ? Number(header) : 0;
  if (value >= 1 && value <= MAX_MILLISECONDS) return value;
  throw new MblmError("invalid_request", `${TIMEOUT_HEADER}: must be milliseconds, 1 to ${MAX_MILLISECONDS}`, {
    field: TIMEOUT_HEADER,
  });
}
