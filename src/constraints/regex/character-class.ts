import type { AST } from "@eslint-community/regexpp";
import { type CodePointSet, complement, toCodePointSet } from "../code-points.js";

type EscapeKind = AST.EscapeCharacterSet["kind"];

const LINE_TERMINATORS: CodePointSet = toCodePointSet([
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
]);

/** What ECMAScript means by the escapes when the flag `i` is not set. */
const ESCAPES: Readonly<Record<EscapeKind, CodePointSet>> = {
  digit: [[0x30, 0x39]],
  word: toCodePointSet([
    [0x30, 0x39],
    [0x41, 0x5a],
    [0x5f, 0x5f],
    [0x61, 0x7a],
  ]),
  space: toCodePointSet([
    [0x09, 0x0d],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ]),
};

/** `.` without the flag `s` */
export const DOT: CodePointSet = complement(LINE_TERMINATORS);

export function escapeSet(kind: EscapeKind, isNegated: boolean): CodePointSet {
  return isNegated ? complement(ESCAPES[kind]) : ESCAPES[kind];
}

/**
 * The code points of `[…]`.
 *
 * @param refuseProperty is called for a `\p{…}` inside
 */
export function classSet(node: AST.ClassRangesCharacterClass, refuseProperty: () => never): CodePointSet {
  const set = toCodePointSet(node.elements.flatMap((element) => elementSet(element, refuseProperty)));
  return node.negate ? complement(set) : set;
}

function elementSet(element: AST.ClassRangesCharacterClassElement, refuseProperty: () => never): CodePointSet {
  switch (element.type) {
    case "Character":
      return [[element.value, element.value]];
    case "CharacterClassRange":
      return [[element.min.value, element.max.value]];
    case "CharacterSet":
      return element.kind === "property" ? refuseProperty() : escapeSet(element.kind, element.negate);
  }
}
