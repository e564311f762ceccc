/** Code points from the first to the second, both included. 0 … 0x10FFFF */
export type CodePointRange = readonly [number, number];
/** Ascending, disjoint and not adjacent. */
export type CodePointSet = readonly CodePointRange[];

export const ALL_CODE_POINTS: CodePointSet = [[0, 0x10ffff]];
/** Not characters: UTF-8 has no form for them. */
export const SURROGATES: CodePointSet = [[0xd800, 0xdfff]];

/** The set of ranges given in any order. */
export function toCodePointSet(ranges: readonly CodePointRange[]): CodePointSet {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [first, last] of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && first <= previous[1] + 1) previous[1] = Math.max(previous[1], last);
    else merged.push([first, last]);
  }
  return merged;
}

/** All code points that are not in `set`. */
export function complement(set: CodePointSet): CodePointSet {
  const gaps: CodePointRange[] = [];
  let start = 0;
  for (const [first, last] of set) {
    if (first > start) gaps.push([start, first - 1]);
    start = last + 1;
  }
  if (start <= 0x10ffff) gaps.push([start, 0x10ffff]);
  return gaps;
}

/** The code points of `set` that are not in `removed`. */
export function subtract(set: CodePointSet, removed: CodePointSet): CodePointSet {
  return complement(toCodePointSet([...complement(set), ...removed]));
}
