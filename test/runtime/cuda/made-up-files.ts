import { parseElf } from "../../../src/runtime/cuda/elf-file.js";
import type { SystemFiles } from "../../../src/runtime/cuda/system-files.js";

/** A file system of nothing but the given files. */
export function makeFiles(contents: Readonly<Record<string, Buffer>>): SystemFiles {
  const paths = Object.keys(contents);
  const below = (folder: string): string[] =>
    paths.filter((path) => path.startsWith(`${folder}/`)).map((path) => path.slice(folder.length + 1).split("/")[0]!);
  return {
    exists: (path) => path in contents || below(path).length > 0,
    list: (folder) => [...new Set(below(folder))],
    read: (path) => contents[path],
    readElf: (path) => {
      const data = contents[path];
      return data && parseElf((offset, length) => data.subarray(offset, offset + length));
    },
  };
}

const HEADER_BYTES = 48;
const ENTRY_BYTES = 24;

/** /etc/ld.so.cache as ldconfig writes it. */
export function makeLoaderCache(entries: readonly { name: string; path: string; flags?: number }[]): Buffer {
  const texts = entries.flatMap(({ name, path }) => [name, path]);
  const textsAt = HEADER_BYTES + ENTRY_BYTES * entries.length;
  const offsets = texts.map((_, i) => textsAt + texts.slice(0, i).reduce((sum, text) => sum + text.length + 1, 0));
  const head = Buffer.alloc(textsAt);
  head.write("glibc-ld.so.cache1.1", 0, "latin1");
  head.writeUInt32LE(entries.length, 20);
  for (const [i, { flags = 0x0303 }] of entries.entries()) {
    head.writeUInt32LE(flags, HEADER_BYTES + ENTRY_BYTES * i);
    head.writeUInt32LE(offsets[2 * i]!, HEADER_BYTES + ENTRY_BYTES * i + 4);
    head.writeUInt32LE(offsets[2 * i + 1]!, HEADER_BYTES + ENTRY_BYTES * i + 8);
  }
  return Buffer.concat([head, Buffer.from(texts.map((text) => `${text}\0`).join(""), "latin1")]);
}
