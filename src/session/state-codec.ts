import { type Static, Type } from "typebox";
import Compile from "typebox/compile";
import type { SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { type BlockKind, decodeBlock, encodeBlock } from "./block.js";

/*
 * A state as a block (see block.ts). The header names model and bundle; the arrays are, in order: recent, tail (uint16),
 * seen (uint8), contexts, the tensors of every stage, and logits, where there are any (float32).
 */

const FORMAT_VERSION = 1;

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
  logits: Type.Optional(Count),
});
type Header = Static<typeof Header>;
const header = Compile(Header);

const STATE: BlockKind<Header> = {
  magic: "MBLMSTAT",
  name: "a state of mblm-server",
  version: FORMAT_VERSION,
  isHeader: (value): value is Header => header.Check(value),
  dataBytes: ({ recent, tail, seen, contexts, stages, logits = 0 }) => {
    const floats = [...contexts, ...stages.flat()].reduce((sum, count) => sum + count, logits);
    return 2 * (recent + tail) + seen + 4 * floats;
  },
  refuse,
};

/** The state as one block of bytes. */
export function encodeState({ model, snapshot, tail, seen, logits }: SequenceState): Buffer {
  const description: Header = {
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
    ...(logits && { logits: logits.length }),
  };
  const arrays = [
    snapshot.recent,
    tail,
    seen,
    ...snapshot.contexts,
    ...snapshot.stages.flat(),
    ...(logits ? [logits] : []),
  ];
  return encodeBlock(STATE.magic, description, arrays);
}

/**
 * The state that the bytes describe, of whatever model.
 *
 * @throws MblmError `invalid_request` when they are no state, damaged, or of another format
 */
export function decodeState(bytes: Buffer): SequenceState {
  const { header: description, data, rest } = decodeBlock(bytes, STATE);
  if (rest.length > 0)
    throw refuse(`is damaged (it has ${bytes.length} bytes instead of ${bytes.length - rest.length})`);
  return readArrays(data, description);
}

function readArrays(data: Buffer, description: Header): SequenceState {
  let offset = data.byteOffset;
  /** A copy: the arrays inside the block need not be aligned. */
  const take = (numBytes: number): ArrayBuffer => {
    const start = offset;
    offset += numBytes;
    return (data.buffer as ArrayBuffer).slice(start, offset);
  };
  const ids = (count: number): Uint16Array => new Uint16Array(take(2 * count));
  const floats = (count: number): Float32Array => new Float32Array(take(4 * count));
  const recent = ids(description.recent);
  const tail = ids(description.tail);
  const seen = new Uint8Array(take(description.seen));
  const contexts = description.contexts.map(floats);
  const stages = description.stages.map((tensors) => tensors.map(floats));
  const logits = description.logits === undefined ? undefined : floats(description.logits);
  const { model: id, bundle: bundleDigest, length, crossed_at: crossedAt } = description;
  const snapshot = { length, crossedAt, recent, contexts, stages };
  return { model: { id, bundleDigest }, snapshot, tail, seen, ...(logits && { logits }) };
}

function refuse(problem: string): MblmError {
  return new MblmError("invalid_request", `snapshot: ${problem}`, { field: "snapshot" });
}
