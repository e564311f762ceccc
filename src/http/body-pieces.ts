import { Readable } from "node:stream";
import { MblmError } from "../errors.js";

/**
 * Bytes of a stream in pieces of `size`, the last one shorter; never an empty one. Memory does not grow with the stream.
 *
 * @throws MblmError `aborted` when the stream breaks off
 */
export async function* toPieces(stream: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(size);
  let length = 0;
  for await (const chunk of unbroken(stream)) {
    for (let start = 0; start < chunk.length; ) {
      const count = Math.min(size - length, chunk.length - start);
      piece.set(chunk.subarray(start, start + count), length);
      start += count;
      length += count;
      if (length < size) continue;
      yield piece;
      piece = new Uint8Array(size);
      length = 0;
    }
  }
  if (length > 0) yield piece.subarray(0, length);
}

async function* unbroken(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    // Who reads no further must not break the connection off: an answer is still to go out on it.
    yield* stream instanceof Readable ? stream.iterator({ destroyOnReturn: false }) : stream;
  } catch (cause) {
    throw new MblmError("aborted", "The request's body broke off.", { cause });
  }
}

/** The whole stream. @throws MblmError `body_too_large` above `maxBytes`, `aborted` when it breaks off */
export async function readWhole(stream: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of unbroken(stream)) {
    length += chunk.length;
    if (length > maxBytes) throw new MblmError("body_too_large", `The body is larger than ${maxBytes} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
