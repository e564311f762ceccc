export interface MadeUpLibrary {
  readonly needed?: readonly string[];
  readonly soname?: string;
  /** Behind everything else, as text between zero bytes. */
  readonly text?: string;
  readonly machine?: number;
  /** 1 for 32 bits. */
  readonly fileClass?: number;
}

const X86_64 = 62;
const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
/** Where the made-up library would be loaded: unlike its place in the file, so that readers have to translate. */
const BASE = 0x10000;

/** The smallest shared library that a reader of dynamic sections takes: header, two segments, names, dynamic section. */
export function makeElf({ needed = [], soname, text = "", machine = X86_64, fileClass = 2 }: MadeUpLibrary): Buffer {
  const offsets: number[] = [];
  let strings = "\0";
  for (const name of [...needed, ...(soname === undefined ? [] : [soname])]) {
    offsets.push(strings.length);
    strings += `${name}\0`;
  }
  const stringsAt = HEADER_BYTES + 2 * SEGMENT_BYTES;
  const dynamic: [tag: number, value: number][] = [
    [5, BASE + stringsAt],
    [10, strings.length],
    ...needed.map((_, i): [number, number] => [1, offsets[i]!]),
    ...(soname === undefined ? [] : [[14, offsets.at(-1)!] as [number, number]]),
    [0, 0],
    [1, 0], // what comes behind the end does not count
  ];
  const dynamicAt = stringsAt + strings.length;
  const header = Buffer.alloc(HEADER_BYTES);
  header.write("\x7fELF", 0, "latin1");
  header[4] = fileClass;
  header[5] = 1;
  header.writeUInt16LE(3, 16);
  header.writeUInt16LE(machine, 18);
  header.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  header.writeUInt16LE(SEGMENT_BYTES, 54);
  header.writeUInt16LE(2, 56);
  const end = dynamicAt + 16 * dynamic.length;
  return Buffer.concat([
    header,
    segment(1, 0, end),
    segment(2, dynamicAt, 16 * dynamic.length),
    Buffer.from(strings, "latin1"),
    ...dynamic.map(([tag, value]) => words(tag, value)),
    Buffer.from(`\0${text}\0`, "latin1"),
  ]);
}

function segment(type: number, offset: number, size: number): Buffer {
  const data = Buffer.alloc(SEGMENT_BYTES);
  data.writeUInt32LE(type, 0);
  data.writeBigUInt64LE(BigInt(offset), 8);
  data.writeBigUInt64LE(BigInt(BASE + offset), 16);
  data.writeBigUInt64LE(BigInt(size), 32);
  return data;
}

function words(...values: number[]): Buffer {
  const data = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) data.writeBigUInt64LE(BigInt(value), 8 * i);
  return data;
}
