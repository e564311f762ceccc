import { crc32, deflateRawSync } from "node:zlib";

/** A zip archive of the files, by their paths in it. */
export function makeWheel(files: Readonly<Record<string, Buffer>>): Buffer {
  const locals: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [path, data] of Object.entries(files)) {
    const name = Buffer.from(path);
    const packed = deflateRawSync(data);
    const fields = Buffer.alloc(22); // from “version needed” to “extra length”, the same in both headers
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(8, 4); // deflate
    fields.writeUInt32LE(crc32(data), 10);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(data.length, 18);
    const lengths = shorts(name.length, 0);
    const local = Buffer.concat([words(0x04034b50), fields, lengths, name, packed]);
    locals.push(local);
    const rest = Buffer.concat([shorts(0, 0, 0), words(0, offset)]); // comment, disk, attributes, offset
    entries.push(Buffer.concat([words(0x02014b50), shorts(20), fields, lengths, rest, name]));
    offset += local.length;
  }
  const directory = Buffer.concat(entries);
  const count = entries.length;
  const end = Buffer.concat([
    words(0x06054b50),
    shorts(0, 0, count, count),
    words(directory.length, offset),
    shorts(0),
  ]);
  return Buffer.concat([...locals, directory, end]);
}

function shorts(...values: number[]): Buffer {
  const data = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) data.writeUInt16LE(value, 2 * i);
  return data;
}

function words(...values: number[]): Buffer {
  const data = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) data.writeUInt32LE(value, 4 * i);
  return data;
}
