import { type CodePointSet, complement, subtract } from "../code-points.js";
import { alternate, bytes, concat, type Ir, literal, NOTHING, series } from "../ir.js";
import { encodeUtf8 } from "../utf8.js";
import { ITEM_SEPARATOR, member, UNESCAPED } from "./json-text.js";

/** Code points with an escape of two characters, as `JSON.stringify` writes them. */
const SHORT_ESCAPES: ReadonlyMap<number, string> = new Map([
  [0x08, "b"],
  [0x09, "t"],
  [0x0a, "n"],
  [0x0c, "f"],
  [0x0d, "r"],
  [0x22, '"'],
  [0x5c, "\\"],
]);
const NUM_CONTROLS = 0x20;
const ESCAPED: CodePointSet = complement(UNESCAPED);

/** One code point of the set inside a JSON string, spelled as `JSON.stringify` spells it. Surrogates have no form. */
export function encodeInString(set: CodePointSet): Ir {
  const escaped = subtract(set, UNESCAPED).flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i),
  );
  const plain = encodeUtf8(subtract(set, ESCAPED));
  if (escaped.length === 0) return plain;
  return alternate([plain, concat([literal("\\"), alternate([shortEscapes(escaped), unicodeEscapes(escaped)])])]);
}

function shortEscapes(codePoints: readonly number[]): Ir {
  const letters = codePoints.flatMap((codePoint) => SHORT_ESCAPES.get(codePoint) ?? []);
  return letters.length === 0 ? NOTHING : bytes(letters.map((letter) => byteRange(letter)));
}

/** `u00XX` with lower-case digits, for control characters without a short escape. */
function unicodeEscapes(codePoints: readonly number[]): Ir {
  const controls = codePoints.filter((codePoint) => codePoint < NUM_CONTROLS && !SHORT_ESCAPES.has(codePoint));
  if (controls.length === 0) return NOTHING;
  const rows = [0, 1].map((high) => {
    const low = controls
      .filter((codePoint) => codePoint >> 4 === high)
      .map((codePoint) => (codePoint & 15).toString(16));
    return low.length === 0 ? NOTHING : concat([literal(String(high)), bytes(low.map((digit) => byteRange(digit)))]);
  });
  return concat([literal("u00"), alternate(rows)]);
}

function byteRange(character: string): readonly [number, number] {
  return [character.charCodeAt(0), character.charCodeAt(0)];
}

/** A JSON value in its one spelling, but for the spaces that separators may have. */
export function literalValue(value: unknown): Ir {
  if (typeof value !== "object" || value === null) return literal(JSON.stringify(value));
  if (Array.isArray(value)) return enclose("[", value.map(literalValue), "]");
  const members = Object.entries(value).map(([name, inner]) => member(literalName(name), literalValue(inner)));
  return enclose("{", members, "}");
}

export function literalName(name: string): Ir {
  return literal(JSON.stringify(name));
}

function enclose(open: string, items: readonly Ir[], close: string): Ir {
  const required = items.map((ir) => ({ ir, isRequired: true }));
  return concat([literal(open), series(required, ITEM_SEPARATOR), literal(close)]);
}
