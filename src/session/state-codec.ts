import { createHash } from "node:crypto";
import { type Static, Type } from "typebox";
import Compile from "typebox/compile";
import type { ModelInfo } from "../core/model-info.js";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";

/*
 * A state as bytes, all numbers little-endian:
 *   "MBLMSTAT" · header length (uint32) · header (JSON) · arrays, one after the other · SHA-256 of everything before
 * The header names model and bundle; the arrays are, in order: recent, tail (uint16), seen (uint8), contexts, and the
 * tensors of every stage (float32).
 */

const MAGIC = Buffer.from("MBLMSTAT");
const FORMAT_VERSION = 1;
const DIGEST_BYTES = 32;

const Count = Type.Integer({ minimum: 0 });
const Header = Type.Object({
  format_version: Type.Literal(FORMAT_VERSION),
  model: Type.String(),
  bundle: Type.String(),
  length: Count,
  crossed_at: Count,
  recent: Count,
  tail: Count,
  seen: Count,
  contexts: Type.Array(Count),
  stages: Type.Array(Type.Array(Count)),
});
const header = Compile(Header);

type ModelIdentity = Pick<ModelInfo, "id" | "bundleDigest">;

/** The state as one block of bytes. */
export function encodeState(state: SequenceState, model: ModelIdentity): Buffer {
  const { snapshot, tail, seen } = state;
  const description: Static<typeof Header> = {
    format_version: FORMAT_VERSION,
    model: model.id,
    bundle: model.bundleDigest,
    length: snapshot.length,
    crossed_at: snapshot.crossedAt,
    recent: snapshot.recent.length,
    tail: tail.length,
    seen: seen.length,
    contexts: snapshot.contexts.map((context) => context.length),
    stages: snapshot.stages.map((tensors) => tensors.map((tensor) => tensor.length)),
  };
  const text = Buffer.from(JSON.stringify(description));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  const arrays = [snapshot.recent, tail, seen, ...snapshot.contexts, ...snapshot.stages.flat()];
  const parts = arrays.map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  const content = Buffer.concat([MAGIC, size, text, ...parts]);
  return Buffer.concat([content, digest(content)]);
}

/**
 * The state that the bytes describe.
 *
 * @throws MblmError `invalid_request` when they are no state, damaged, or of another model, bundle or format
 */
export function decodeState(bytes: Buffer, model: ModelIdentity): SequenceState {
  const description = readHeader(bytes);
  if (description.model !== model.id) throw refuse(`is of the model ${description.model}; ${model.id} is served here`);
  if (description.bundle !== model.bundleDigest)
    throw refuse(`is of another bundle of ${model.id}: export or weights differ`);
  const content = bytes.subarray(0, -DIGEST_BYTES);
  if (!digest(content).equals(bytes.subarray(-DIGEST_BYTES))) throw refuse("is damaged (its SHA-256 is wrong)");
  return readArrays(content, description);
}

function readHeader(bytes: Buffer): Static<typeof Header> {
  const start = MAGIC.length + 4;
  if (bytes.length < start + DIGEST_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw refuse("is not a state of mblm-server");
  }
  const end = start + bytes.readUInt32LE(MAGIC.length);
  let description: unknown;
  try {
    description = JSON.parse(bytes.toString("utf8", start, Math.min(end, bytes.length)));
  } catch {
    throw refuse("is damaged (its header cannot be read)");
  }
  const version = (description as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version !== FORMAT_VERSION) {
    throw refuse(`has format_version ${version}; this server reads ${FORMAT_VERSION}`);
  }
  if (!header.Check(description)) throw refuse("is damaged (its header is wrong)");
  const expected = end + dataBytes(description) + DIGEST_BYTES;
  if (bytes.length !== expected) throw refuse(`is damaged (it has ${bytes.length} bytes instead of ${expected})`);
  return description;
}

function dataBytes({ recent, tail, seen, contexts, stages }: Static<typeof Header>): number {
  const floats = [...contexts, ...stages.flat()].reduce((sum, count) => sum + count, 0);
  return 2 * (recent + tail) + seen + 4 * floats;
}

function readArrays(content: Buffer, description: Static<typeof Header>): SequenceState {
  let offset = content.length - dataBytes(description);
  /** A copy: the arrays inside the block need not be aligned. */
  const take = (numBytes: number): ArrayBuffer => {
    const start = content.byteOffset + offset;
    offset += numBytes;
    return (content.buffer as ArrayBuffer).slice(start, start + numBytes);
  };
  const ids = (count: number): Uint16Array => new Uint16Array(take(2 * count));
  const floats = (count: number): Float32Array => new Float32Array(take(4 * count));
  const recent = ids(description.recent);
  const tail = ids(description.tail);
  const seen = new Uint8Array(take(description.seen));
  const contexts = description.contexts.map(floats);
  const stages = description.stages.map((tensors) => tensors.map(floats));
  const { length, crossed_at: crossedAt } = description;
  return { snapshot: { length, crossedAt, recent, contexts, stages }, tail, seen };
}

function digest(content: Buffer): Buffer {
  return createHash("sha256").update(content).digest();
}

function refuse(problem: string): MblmError {
  return new MblmError("invalid_request", `snapshot: ${problem}`, { field: "snapshot" });
}
