import { createHash } from "node:crypto";
import type { MblmError } from "../errors.js";

/*
 * A block, all numbers little-endian:
 *   magic (8 bytes) · header length (uint32) · header (JSON) · arrays, one after the other · SHA-256 of everything before
 */

const DIGEST_BYTES = 32;

/** What a block holds. */
export interface BlockKind<Header> {
  /** 8 bytes. */
  readonly magic: string;
  readonly name: string;
  readonly version: number;
  readonly isHeader: (value: unknown) => value is Header;
  /** Bytes of the arrays that the header describes. */
  readonly dataBytes: (header: Header) => number;
  readonly refuse: (problem: string) => MblmError;
}

export function encodeBlock(magic: string, header: object, arrays: readonly ArrayBufferView[]): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  const parts = arrays.map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  const content = Buffer.concat([Buffer.from(magic), size, text, ...parts]);
  return Buffer.concat([content, digest(content)]);
}

/**
 * The header and data of a block, and what follows it.
 *
 * @throws MblmError of `kind.refuse` when this is no such block, or a damaged one
 */
export function decodeBlock<Header>(
  bytes: Buffer,
  kind: BlockKind<Header>,
): { readonly header: Header; readonly data: Buffer; readonly rest: Buffer } {
  const { header, end: dataAt } = readHeader(bytes, kind);
  const digestAt = dataAt + kind.dataBytes(header);
  const end = digestAt + DIGEST_BYTES;
  if (bytes.length < end) throw kind.refuse(`is damaged (it has ${bytes.length} bytes instead of ${end})`);
  if (!digest(bytes.subarray(0, digestAt)).equals(bytes.subarray(digestAt, end))) {
    throw kind.refuse("is damaged (its SHA-256 is wrong)");
  }
  return { header, data: bytes.subarray(dataAt, digestAt), rest: bytes.subarray(end) };
}

function readHeader<Header>(bytes: Buffer, kind: BlockKind<Header>): { header: Header; end: number } {
  const start = kind.magic.length + 4;
  if (bytes.length < start + DIGEST_BYTES || bytes.toString("latin1", 0, kind.magic.length) !== kind.magic) {
    throw kind.refuse(`is not ${kind.name}`);
  }
  const end = start + bytes.readUInt32LE(kind.magic.length);
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString("utf8", start, Math.min(end, bytes.length)));
  } catch {
    throw kind.refuse("is damaged (its header cannot be read)");
  }
  const version = (header as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version !== kind.version) {
    throw kind.refuse(`has format_version ${version}; this server reads ${kind.version}`);
  }
  if (!kind.isHeader(header)) throw kind.refuse("is damaged (its header is wrong)");
  return { header, end };
}

function digest(content: Buffer): Buffer {
  return createHash("sha256").update(content).digest();
}
