import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { MblmError } from "../../errors.js";
import { BodyReader } from "../../feeding/body-reader.js";
import type { AppContext } from "../app-context.js";
import { deadlineExceeded } from "../limits/deadline.js";
import { continueBody } from "../limits/expect-continue.js";
import { requireDeclaredFits } from "./declared-length.js";

/** A body that is read as a stream, and what ends the reading. */
export interface OpenBody {
  readonly body: BodyReader;
  /** Aborted when the client has gone, the request's time is over, or the server's. Its reason is what to answer with. */
  readonly stop: AbortSignal;
  /** Nothing more is read. To be called when the work on the body has ended, however it did. */
  close(): void;
}

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
): OpenBody {
  const { maxUploadBytes: maxBytes, uploadIdleSeconds: idleSeconds } = config;
  requireDeclaredFits(request.headers, maxBytes);
  continueBody(request, reply);
  const stream = (request.body as Readable | undefined) ?? Readable.from([]);
  const body = new BodyReader(stream, { maxBytes, idleSeconds }, (count) => metrics.uploaded(count));
  const early = new AbortController();
  const { deadline } = request;
  const late = (): void => early.abort(deadlineExceeded());
  if (deadline?.aborted) late();
  else deadline?.addEventListener("abort", late, { once: true });
  let noteClosed = (): void => {};
  const closed = new Promise<void>((resolve) => {
    noteClosed = resolve;
  });
  const forgetEnding = lifecycle.endWith(async () => {
    early.abort(new MblmError("shutting_down", "The server is shutting down."));
    await closed;
  });
  return {
    body,
    stop: AbortSignal.any([controller.signal, early.signal]),
    close() {
      body.close();
      deadline?.removeEventListener("abort", late);
      forgetEnding();
      noteClosed();
    },
  };
}

/** Does something with a request's body while it arrives, to the end. As `openBody`. */
export async function withBody<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  context: Serving,
  controller: AbortController,
  work: (open: OpenBody) => Promise<T>,
): Promise<T> {
  const open = openBody(request, reply, context, controller);
  try {
    return await work(open);
  } finally {
    open.close();
  }
}
