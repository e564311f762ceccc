// Entry `mblm-server/client/node`: what only Node has.
import { Duplex } from "node:stream";
import type { ByteStream, StreamGeneration } from "../client/index.js";
import { toWebStreams } from "../client/index.js";

/**
 * The stream as a Node Duplex: what is written is pushed; after `end()` the generation begins, whose bytes are read.
 * Destroying it cancels the generation. The stream itself stays open.
 */
export function toDuplex(stream: ByteStream, options: StreamGeneration = {}): Duplex {
  const { writable, readable } = toWebStreams(stream, options);
  return Duplex.fromWeb({ writable, readable } as never);
}
