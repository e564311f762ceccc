import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { Lifecycle } from "../lifecycle.js";
import { type TimedBody, timedBody } from "./timed-body.js";

const PIECE_BYTES = 65_536;

/**
 * Has bodies that are read as a whole keep the times of those that are read as streams: a sender that stops, or takes longer
 * than its request may, is answered, and at a shutdown none is waited for.
 *
 * @param idleSeconds without a byte; 0: any
 */
export function timeWholeBodies(server: FastifyInstance, lifecycle: Lifecycle, idleSeconds: number): void {
  server.addHook("preParsing", async (request, { raw: response }, payload) => {
    // A small one has come with its head, and cannot be late.
    if (request.raw.complete || request.ws || request.routeOptions.config.streamsBody === true) return undefined;
    // How large it may be, whoever takes it knows.
    const limits = { maxBytes: Number.POSITIVE_INFINITY, idleSeconds };
    const timed = timedBody(request, payload as Readable, limits, lifecycle);
    response.once("close", () => timed.close());
    return Readable.from(piecesOf(timed), { objectMode: false });
  });
}

async function* piecesOf({ body, stop, close }: TimedBody): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of body.pieces(PIECE_BYTES, stop)) yield piece.slice();
  } finally {
    close();
  }
}
