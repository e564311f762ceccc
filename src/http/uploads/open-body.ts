import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { AppContext } from "../app-context.js";
import { continueBody } from "../limits/expect-continue.js";
import { type TimedBody, timedBody } from "../limits/timed-body.js";
import { requireDeclaredFits } from "./declared-length.js";

type Serving = Pick<AppContext, "config" | "lifecycle" | "metrics">;

/**
 * Begins to read a request's body while it arrives. A client that waits to be told so begins to send it now.
 *
 * @param controller aborted when the client has gone
 * @throws MblmError `body_too_large`, before any work, when the body is declared to be
 */
export function openBody(
  request: FastifyRequest,
  reply: FastifyReply,
  { config, lifecycle, metrics }: Serving,
  controller: AbortController,
): TimedBody {
  const { maxUploadBytes: maxBytes, uploadIdleSeconds: idleSeconds } = config;
  requireDeclaredFits(request.headers, maxBytes);
  continueBody(request, reply);
  const stream = (request.body as Readable | undefined) ?? Readable.from([]);
  const timed = timedBody(request, stream, { maxBytes, idleSeconds }, lifecycle, (count) => metrics.uploaded(count));
  return { ...timed, stop: AbortSignal.any([controller.signal, timed.stop]) };
}

/** Does something with a request's body while it arrives, to the end. As `openBody`. */
export async function withBody<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  context: Serving,
  controller: AbortController,
  work: (open: TimedBody) => Promise<T>,
): Promise<T> {
  const open = openBody(request, reply, context, controller);
  try {
    return await work(open);
  } finally {
    open.close();
  }
}
