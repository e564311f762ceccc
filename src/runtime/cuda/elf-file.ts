import { closeSync, openSync, readSync } from "node:fs";

/** What the dynamic loader would read of a shared library. */
export interface ElfLibrary {
  readonly machine: "x86-64" | "aarch64" | "other";
  /** Names of the libraries that have to be loaded with it (DT_NEEDED), in order. */
  readonly needed: readonly string[];
  /** The name by which others ask for it (DT_SONAME). */
  readonly soname: string | undefined;
}

/** Reads `length` bytes at `offset` of a file; fewer at its end. */
export type ReadAt = (offset: number, length: number) => Buffer;

const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const DYNAMIC_ENTRY_BYTES = 16;
/** More than any real library has: a damaged file must not make us read for ever. */
const MAX_TABLE_BYTES = 2 ** 26;

const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const SHARED_OBJECT = 3;
const SEGMENT = { load: 1, dynamic: 2 } as const;
const TAG = { end: 0, needed: 1, strings: 5, stringBytes: 10, soname: 14 } as const;
const MACHINES: Readonly<Record<number, ElfLibrary["machine"]>> = { 62: "x86-64", 183: "aarch64" };

/** Reads the file at `path`; undefined when it is no 64-bit little-endian shared library. */
export function readElfFile(path: string): ElfLibrary | undefined {
  const file = openSync(path, "r");
  try {
    return parseElf((offset, length) => {
      const buffer = Buffer.alloc(length);
      return buffer.subarray(0, readSync(file, buffer, 0, length, offset));
    });
  } finally {
    closeSync(file);
  }
}

/** As `readElfFile`, of anything that can be read in pieces. */
export function parseElf(readAt: ReadAt): ElfLibrary | undefined {
  const header = readAt(0, HEADER_BYTES);
  if (header.length < HEADER_BYTES || header.toString("latin1", 0, 4) !== "\x7fELF") return undefined;
  if (header[4] !== CLASS_64 || header[5] !== LITTLE_ENDIAN || header.readUInt16LE(16) !== SHARED_OBJECT)
    return undefined;
  const segments = readSegments(header, readAt);
  const dynamic = segments.find(({ type }) => type === SEGMENT.dynamic);
  if (!dynamic || dynamic.size > MAX_TABLE_BYTES) return undefined;
  const entries = readDynamic(readAt(dynamic.offset, dynamic.size));
  const first = (tag: number): number | undefined => entries.find((entry) => entry.tag === tag)?.value;
  const names = readStrings(first(TAG.strings), first(TAG.stringBytes), segments, readAt);
  if (names === undefined) return undefined;
  const soname = first(TAG.soname);
  return {
    machine: MACHINES[header.readUInt16LE(18)] ?? "other",
    needed: entries.filter(({ tag }) => tag === TAG.needed).map(({ value }) => textAt(names, value)),
    soname: soname === undefined ? undefined : textAt(names, soname),
  };
}

interface Segment {
  readonly type: number;
  /** Where it lies in the file, and in memory once it is loaded. */
  readonly offset: number;
  readonly address: number;
  readonly size: number;
}

function readSegments(header: Buffer, readAt: ReadAt): Segment[] {
  const [size, count] = [header.readUInt16LE(54), header.readUInt16LE(56)];
  if (size < SEGMENT_BYTES) return [];
  const table = readAt(Number(header.readBigUInt64LE(32)), size * count);
  return Array.from({ length: Math.floor(table.length / size) }, (_, i) => ({
    type: table.readUInt32LE(i * size),
    offset: Number(table.readBigUInt64LE(i * size + 8)),
    address: Number(table.readBigUInt64LE(i * size + 16)),
    size: Number(table.readBigUInt64LE(i * size + 32)),
  }));
}

function readDynamic(data: Buffer): { tag: number; value: number }[] {
  const entries = Array.from({ length: Math.floor(data.length / DYNAMIC_ENTRY_BYTES) }, (_, i) => ({
    tag: Number(data.readBigInt64LE(i * DYNAMIC_ENTRY_BYTES)),
    value: Number(data.readBigUInt64LE(i * DYNAMIC_ENTRY_BYTES + 8)),
  }));
  const end = entries.findIndex(({ tag }) => tag === TAG.end);
  return end < 0 ? entries : entries.slice(0, end);
}

/** The table of names, which is given by its address in memory. */
function readStrings(
  address: number | undefined,
  size: number | undefined,
  segments: readonly Segment[],
  readAt: ReadAt,
): Buffer | undefined {
  if (address === undefined || size === undefined || size > MAX_TABLE_BYTES) return undefined;
  const segment = segments.find(
    (one) => one.type === SEGMENT.load && address >= one.address && address < one.address + one.size,
  );
  return segment && readAt(segment.offset + address - segment.address, size);
}

function textAt(strings: Buffer, offset: number): string {
  const end = strings.indexOf(0, offset);
  return strings.toString("latin1", offset, end < 0 ? strings.length : end);
}
