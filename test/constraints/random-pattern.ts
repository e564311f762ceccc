import type { Random } from "./random.js";

/** Characters that the patterns and the strings to match share, so that matches are common. */
export const ALPHABET = ["a", "b", "c", "0", "_", " ", "\n", "-", "é", "€", "😀", "\u2028"];

const ATOMS = [
  "a",
  "b",
  "c",
  "é",
  "€",
  "😀",
  "\\u{1F600}",
  "\\u20ac",
  "\\x61",
  "\\ud83d\\ude00",
  "\\n",
  "\\$",
  "-",
  " ",
  "0",
];
const SETS = [
  ".",
  "\\d",
  "\\w",
  "\\s",
  "\\D",
  "\\W",
  "\\S",
  "[abc]",
  "[^a]",
  "[a-c0-9]",
  "[^\\w\\s]",
  "[\\d_]",
  "[é-€]",
];
const WIDE_SETS = [
  "[\\u{1F600}-\\u{1F64F}]",
  "[^\\u{0}-\\u{7f}]",
  "[^]",
  "[\\S\\s]",
  "[\\-\\]]",
  "[\\uD800-\\uDFFFa]",
  "\\ud800",
];
const QUANTIFIERS = ["*", "+", "?", "{2}", "{0}", "{1,}", "{2,3}", "{0,2}", "*?", "+?", "??", "{1,2}?"];

/** A regular expression of the supported subset. */
export function randomPattern(random: Random, depth = 2): string {
  const alternatives = random.list(1, random.chance(0.3) ? 3 : 1, () => randomSequence(random, depth));
  return alternatives.map((text) => anchored(random, text)).join("|");
}

function anchored(random: Random, text: string): string {
  return `${random.chance(0.1) ? "^" : ""}${text}${random.chance(0.1) ? "$" : ""}`;
}

function randomSequence(random: Random, depth: number): string {
  return random.list(0, 4, () => randomTerm(random, depth)).join("");
}

function randomTerm(random: Random, depth: number): string {
  const atom = randomAtom(random, depth);
  return random.chance(0.35) ? atom + random.pick(QUANTIFIERS) : atom;
}

function randomAtom(random: Random, depth: number): string {
  if (depth > 0 && random.chance(0.3)) {
    const body = random.list(1, 3, () => randomSequence(random, depth - 1)).join("|");
    return `(${random.pick(["", "?:", `?<n${random.integer(0, 1_000_000_000)}>`])}${body})`;
  }
  return random.pick(random.chance(0.6) ? ATOMS : random.chance(0.8) ? SETS : WIDE_SETS);
}
