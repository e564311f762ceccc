/** One library that the dynamic loader knows (`ldconfig -p`). */
export interface CachedLibrary {
  readonly name: string;
  readonly path: string;
}

const MAGIC = "glibc-ld.so.cache1.1";
const HEADER_BYTES = 48;
const ENTRY_BYTES = 24;
/** ELF, libc 6, x86-64: entries of other kinds are for other programs. */
const FLAGS_X86_64 = 0x0303;

/** Reads /etc/ld.so.cache; empty when it is of another format. */
export function parseLoaderCache(data: Buffer): CachedLibrary[] {
  // Systems before glibc 2.32 put the format of the nineties in front.
  const start = data.indexOf(MAGIC, 0, "latin1");
  if (start < 0 || data.length < start + HEADER_BYTES) return [];
  const text = (offset: number): string => {
    const end = data.indexOf(0, start + offset);
    return data.toString("utf8", start + offset, end < 0 ? data.length : end);
  };
  const count = Math.min(data.readUInt32LE(start + 20), Math.floor((data.length - start - HEADER_BYTES) / ENTRY_BYTES));
  const entries = Array.from({ length: count }, (_, i) => start + HEADER_BYTES + i * ENTRY_BYTES);
  return entries
    .filter((at) => data.readUInt32LE(at) === FLAGS_X86_64)
    .map((at) => ({ name: text(data.readUInt32LE(at + 4)), path: text(data.readUInt32LE(at + 8)) }));
}
