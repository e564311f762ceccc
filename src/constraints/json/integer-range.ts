import { alternate, bytes, concat, type Ir, literal, NOTHING, repeat } from "../ir.js";

/**
 * The decimal form, without leading zeros, of every integer in [min, max].
 *
 * @param min safe integer or -Infinity
 * @param max safe integer or Infinity
 */
export function integersBetween(min: number, max: number): Ir {
  const positive = naturalsBetween(Math.max(min, 1), max);
  const negative = concat([literal("-"), naturalsBetween(Math.max(-max, 1), -min)]);
  const zero = min <= 0 && max >= 0 ? literal("0") : NOTHING;
  return alternate([zero, positive, negative]);
}

/** As above for 1 ≤ min. */
function naturalsBetween(min: number, max: number): Ir {
  if (min > max) return NOTHING;
  const low = String(min);
  if (max === Infinity) {
    const longer = concat([digitBetween(1, 9), repeat(anyDigit, low.length, Infinity)]);
    return alternate([sameLength(low, "9".repeat(low.length)), longer]);
  }
  const high = String(max);
  const options: Ir[] = [];
  for (let length = low.length; length <= high.length; length++) {
    const first = length === low.length ? low : `1${"0".repeat(length - 1)}`;
    const last = length === high.length ? high : "9".repeat(length);
    options.push(sameLength(first, last));
  }
  return alternate(options);
}

/** Digit strings from `low` to `high`, which have the same length, in numeric order. */
function sameLength(low: string, high: string): Ir {
  const first = Number(low[0]);
  const last = Number(high[0]);
  const rest = low.length - 1;
  if (/^0*$/.test(low) && /^9*$/.test(high)) return repeat(anyDigit, low.length, low.length);
  if (first === last) return concat([digitBetween(first, last), sameLength(low.slice(1), high.slice(1))]);
  const options = [
    concat([digitBetween(first, first), sameLength(low.slice(1), "9".repeat(rest))]),
    concat([digitBetween(last, last), sameLength("0".repeat(rest), high.slice(1))]),
  ];
  if (last - first > 1) options.push(concat([digitBetween(first + 1, last - 1), repeat(anyDigit, rest, rest)]));
  return alternate(options);
}

function digitBetween(first: number, last: number): Ir {
  return bytes([[0x30 + first, 0x30 + last]]);
}

const anyDigit = digitBetween(0, 9);
