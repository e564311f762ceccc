import type { Ir } from "../ir.js";
import { integersBetween } from "./integer-range.js";
import { INTEGER, NUMBER } from "./json-text.js";
import type { SchemaKeywords } from "./schema-keywords.js";

/** Steps charged for the digits of a range: writing them out takes about as long as so many steps elsewhere. */
const STEPS_PER_RANGE = 10_000;

/** `minimum`, `maximum` and the exclusive ones, exactly: the automaton reads the number digit by digit. */
export function compileInteger(keywords: SchemaKeywords): Ir {
  const min = Math.max(
    Math.ceil(readBound(keywords, "minimum", -Infinity)),
    Math.floor(readBound(keywords, "exclusiveMinimum", -Infinity)) + 1,
  );
  const max = Math.min(
    Math.floor(readBound(keywords, "maximum", Infinity)),
    Math.ceil(readBound(keywords, "exclusiveMaximum", Infinity)) - 1,
  );
  if (min === -Infinity && max === Infinity) return INTEGER;
  keywords.budget.spend(STEPS_PER_RANGE);
  return integersBetween(min, max);
}

/** Any number: that one lies within bounds is more than an automaton can tell of all its spellings. */
export function compileNumber(keywords: SchemaKeywords): Ir {
  for (const bound of ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]) {
    if (keywords.has(bound)) keywords.refuse(bound, "is supported for the type integer only");
  }
  return NUMBER;
}

function readBound(keywords: SchemaKeywords, keyword: string, fallback: number): number {
  const bound = keywords.readNumber(keyword) ?? fallback;
  // Beyond 2^53 - 1, readers round integers, and a rounded one could be out of bounds.
  if (Number.isFinite(bound) && Math.abs(bound) > Number.MAX_SAFE_INTEGER) {
    keywords.refuse(keyword, "must lie between -(2^53 - 1) and 2^53 - 1");
  }
  return bound;
}
