import { MblmError } from "../errors.js";

/** Messages on the way from a model to where tensors are kept, by field number: onnx.proto. */
const FIELDS = {
  model: { 7: "graph", 25: "function" },
  graph: { 1: "node", 5: "tensor", 15: "sparseTensor" },
  function: { 7: "node", 11: "attribute" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparseTensor", 23: "sparseTensor" },
  sparseTensor: { 1: "tensor", 2: "tensor" },
  tensor: { 13: "externalData" },
  externalData: {},
} as const satisfies Record<string, Record<number, string>>;

type Message = keyof typeof FIELDS;

/** Of `externalData`, a pair of texts. */
const KEY = 1;
const VALUE = 2;
/** Protobuf's wire types, and how deep its readers follow messages. */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;
const MAX_DEPTH = 100;

/**
 * The files in which an ONNX model keeps tensors beside itself, as it names them: relative to its own folder.
 *
 * @param source for the error
 * @throws MblmError `bundle_invalid` when the content is not a model
 */
export function externalFiles(content: Uint8Array, source: string): Set<string> {
  const files = new Set<string>();
  try {
    collect(content, "model", 0, files);
  } catch (cause) {
    throw new MblmError("bundle_invalid", `${source} is not an ONNX model`, { cause });
  }
  return files;
}

function collect(content: Uint8Array, message: Message, depth: number, files: Set<string>): void {
  if (depth > MAX_DEPTH) throw new Error("messages are nested too deeply");
  const kinds: Readonly<Record<number, Message>> = FIELDS[message];
  const texts: Record<number, string> = {};
  for (const [field, value] of readFields(content)) {
    if (message === "externalData") texts[field] = Buffer.from(value).toString();
    const kind = kinds[field];
    if (kind !== undefined) collect(value, kind, depth + 1, files);
  }
  if (texts[KEY] === "location") files.add(texts[VALUE] ?? "");
}

/** The fields of a message that are made of bytes. */
function* readFields(content: Uint8Array): Generator<[field: number, value: Uint8Array]> {
  let offset = 0;
  const readVarint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = content[offset++];
      if (byte === undefined || factor > 2 ** 63) throw new Error("a number does not end");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (offset < content.length) {
    const tag = readVarint();
    const wire = tag % 8;
    if (wire === WIRE.varint) readVarint();
    else if (wire === WIRE.fixed64) offset += 8;
    else if (wire === WIRE.fixed32) offset += 4;
    else if (wire === WIRE.bytes) {
      const length = readVarint();
      const value = content.subarray(offset, offset + length);
      offset += length;
      if (offset <= content.length) yield [Math.floor(tag / 8), value];
    } else throw new Error(`there is no wire type ${wire}`);
    if (offset > content.length) throw new Error("a field ends behind the content");
  }
}
