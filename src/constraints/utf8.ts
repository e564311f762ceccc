import { type CodePointRange, type CodePointSet, SURROGATES, subtract } from "./code-points.js";
import { alternate, type ByteRange, bytes, concat, type Ir } from "./ir.js";

/** Code points of one encoded length end here. */
const LAST_OF_LENGTH = [0x7f, 0x7ff, 0xffff, 0x10ffff];

/** The UTF-8 form of one code point of the set; surrogates have none. */
export function encodeUtf8(set: CodePointSet): Ir {
  const sequences = subtract(set, SURROGATES).flatMap(splitRange);
  return joinBySuffix(sequences);
}

/** Byte ranges of which any choice, byte by byte, encodes a code point of the range; together all of them. */
function splitRange([first, last]: CodePointRange): ByteRange[][] {
  const end = LAST_OF_LENGTH.find((limit) => first <= limit)!;
  if (last > end) return [...splitRange([first, end]), ...splitRange([end + 1, last])];
  for (let bits = 6; bits < 24 && first >> bits !== last >> bits; bits += 6) {
    // The upper bits differ, so the lower ones must run through all their values.
    const low = (1 << bits) - 1;
    if ((first & low) !== 0) return [...splitRange([first, first | low]), ...splitRange([(first | low) + 1, last])];
    if ((last & low) !== low) return [...splitRange([first, (last & ~low) - 1]), ...splitRange([last & ~low, last])];
  }
  const firstBytes = Buffer.from(String.fromCodePoint(first), "utf8");
  const lastBytes = Buffer.from(String.fromCodePoint(last), "utf8");
  return [Array.from(firstBytes, (byte, i) => [byte, lastBytes[i]!] as const)];
}

/** One of the sequences. Common ends are written once, which keeps counted repetitions small. */
function joinBySuffix(sequences: readonly (readonly ByteRange[])[]): Ir {
  const single: ByteRange[] = [];
  const groups = new Map<number, { last: ByteRange; prefixes: ByteRange[][] }>();
  for (const sequence of sequences) {
    const last = sequence.at(-1)!;
    const prefix = sequence.slice(0, -1);
    if (prefix.length === 0) {
      single.push(last);
      continue;
    }
    const key = last[0] * 256 + last[1];
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { last, prefixes: [prefix] });
    else group.prefixes.push(prefix);
  }
  const options = Array.from(groups.values(), ({ last, prefixes }) => concat([joinBySuffix(prefixes), bytes([last])]));
  if (single.length > 0) options.unshift(bytes(single));
  return options.length === 1 ? options[0]! : alternate(options);
}
