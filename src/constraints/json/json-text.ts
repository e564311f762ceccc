import { ALL_CODE_POINTS, type CodePointSet, subtract } from "../code-points.js";
import { alternate, bytes, concat, type Ir, literal, oneOf, optional, repeat } from "../ir.js";
import { MAX_JSON_DEPTH } from "../limits.js";
import { encodeUtf8 } from "../utf8.js";

/*
 * JSON as the constraints write it: RFC 8259 with one optional space after `:` and `,` and no other white space, so
 * that a value has a definite end. Strings spell a code point as itself or as an escape, but no surrogate pairs as two
 * `\u` escapes. Numbers with an exponent have one digit before the point and stay below 1e308, so all are finite.
 */

const space = optional(literal(" "));
export const ITEM_SEPARATOR = concat([literal(","), space]);
const NAME_SEPARATOR = concat([literal(":"), space]);

/** Code points that stand for themselves in a JSON string. */
export const UNESCAPED: CodePointSet = subtract(ALL_CODE_POINTS, [
  [0x00, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]);

const hex = oneOf("0123456789abcdefABCDEF");
const hexButD = oneOf("0123456789abcefABCEF");
const unicodeEscape = concat([
  literal("u"),
  alternate([concat([hexButD, hex]), concat([oneOf("dD"), oneOf("01234567")])]), // no surrogates
  hex,
  hex,
]);

/** One code point of a string in any of its spellings. */
export const STRING_CHARACTER: Ir = alternate([
  encodeUtf8(UNESCAPED),
  concat([literal("\\"), alternate([oneOf('"\\/bfnrt'), unicodeEscape])]),
]);

export function quoted(content: Ir): Ir {
  return concat([literal('"'), content, literal('"')]);
}

export const STRING: Ir = quoted(repeat(STRING_CHARACTER, 0, Infinity));

const digit = bytes([[0x30, 0x39]]);
const nonZeroDigit = bytes([[0x31, 0x39]]);
const digits = repeat(digit, 0, Infinity);
const minus = optional(literal("-"));
const fraction = optional(concat([literal("."), digit, digits]));
/** 0 … 307 */
const positiveExponent = alternate([
  repeat(digit, 1, 2),
  concat([oneOf("012"), digit, digit]),
  concat([literal("30"), oneOf("01234567")]),
]);
const exponent = concat([
  oneOf("eE"),
  alternate([concat([optional(literal("+")), positiveExponent]), concat([literal("-"), repeat(digit, 1, 3)])]),
]);

/** Without a sign before 0, which would be the same number in two spellings. */
export const INTEGER: Ir = alternate([literal("0"), concat([minus, nonZeroDigit, digits])]);
export const NUMBER: Ir = concat([
  minus,
  alternate([
    concat([alternate([literal("0"), concat([nonZeroDigit, digits])]), fraction]),
    concat([digit, fraction, exponent]),
  ]),
]);
export const BOOLEAN: Ir = alternate([literal("true"), literal("false")]);
export const NULL: Ir = literal("null");

/** `"name": value` */
export function member(name: Ir, value: Ir): Ir {
  return concat([name, NAME_SEPARATOR, value]);
}

export function array(item: Ir, min: number, max: number): Ir {
  return concat([literal("["), repeat(item, min, max, ITEM_SEPARATOR), literal("]")]);
}

/** An object with any names, which may repeat. */
export function map(value: Ir, min: number, max: number): Ir {
  return concat([literal("{"), repeat(member(STRING, value), min, max, ITEM_SEPARATOR), literal("}")]);
}

const scalar = alternate([STRING, NUMBER, BOOLEAN, NULL]);

/** Any value with at most `depth` objects and arrays inside one another. */
function anyValue(depth: number): Ir {
  if (depth === 0) return scalar;
  const inner = anyValue(depth - 1);
  return alternate([scalar, map(inner, 0, Infinity), array(inner, 0, Infinity)]);
}

/** Any value, nested to `MAX_JSON_DEPTH`. */
export const ANY_VALUE: Ir = anyValue(MAX_JSON_DEPTH);
/** Any value inside an array or object that is itself open, so that the whole is nested to `MAX_JSON_DEPTH`. */
export const INNER_VALUE: Ir = anyValue(MAX_JSON_DEPTH - 1);
/** Any object, nested to `MAX_JSON_DEPTH`. */
export const ANY_OBJECT: Ir = map(INNER_VALUE, 0, Infinity);
