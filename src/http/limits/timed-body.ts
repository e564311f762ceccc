import type { Readable } from "node:stream";
import type { FastifyRequest } from "fastify";
import { MblmError } from "../../errors.js";
import { type BodyLimits, BodyReader } from "../../feeding/body-reader.js";
import type { Lifecycle } from "../lifecycle.js";

/** A body that is read while it arrives, and what ends the reading. */
export interface TimedBody {
  readonly body: BodyReader;
  /** Aborted when the request's time is over, or the server's. Its reason is what to answer with. */
  readonly stop: AbortSignal;
  /** Nothing more is read. To be called when the work on the body has ended, however it did. */
  close(): void;
}

/**
 * Begins to read a request's body within its limits, its time and the server's.
 *
 * @param onBytes told of the bytes that have come
 */
export function timedBody(
  { deadline }: Pick<FastifyRequest, "deadline">,
  stream: Readable,
  limits: BodyLimits,
  lifecycle: Lifecycle,
  onBytes?: (count: number) => void,
): TimedBody {
  const body = new BodyReader(stream, limits, onBytes);
  const shutdown = new AbortController();
  let noteClosed = (): void => {};
  const closed = new Promise<void>((resolve) => {
    noteClosed = resolve;
  });
  const forgetEnding = lifecycle.endWith(async () => {
    shutdown.abort(new MblmError("shutting_down", "The server is shutting down."));
    await closed;
  });
  return {
    body,
    stop: deadline === undefined ? shutdown.signal : AbortSignal.any([deadline, shutdown.signal]),
    close() {
      body.close();
      forgetEnding();
      noteClosed();
    },
  };
}
