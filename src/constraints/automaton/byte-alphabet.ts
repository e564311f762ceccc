import type { CompileBudget } from "../compile-budget.js";
import type { ByteRange } from "../ir.js";

/** Bytes grouped so that no set of an automaton tells two bytes of a class apart. */
export interface ByteAlphabet {
  readonly numClasses: number;
  /** Class of each byte. 256 */
  readonly classes: Uint8Array;
  /** The classes that make up each set, without bytes that are not allowed. */
  readonly classesOfSet: readonly (readonly number[])[];
}

/**
 * The coarsest grouping for `sets`.
 *
 * @param allowed bytes that may occur at all; the others are in no set
 * @throws MblmError `invalid_request` when there are too many sets
 */
export function buildAlphabet(
  sets: readonly (readonly ByteRange[])[],
  allowed: ReadonlySet<number> | undefined,
  budget: CompileBudget,
): ByteAlphabet {
  const isAllowed = Array.from({ length: 256 }, (_, byte) => allowed === undefined || allowed.has(byte));
  const classes = new Uint8Array(256);
  let numClasses = refine(classes, (byte) => isAllowed[byte]!);
  const members = new Uint8Array(256);
  for (const ranges of sets) {
    budget.spend(256);
    members.fill(0);
    for (const [first, last] of ranges) members.fill(1, first, last + 1);
    numClasses = refine(classes, (byte) => members[byte] === 1);
  }
  return { numClasses, classes, classesOfSet: sets.map((ranges) => classesIn(ranges, classes, isAllowed)) };
}

/** Splits every class into the bytes inside and outside and numbers classes by their lowest byte. Returns how many. */
function refine(classes: Uint8Array, isInside: (byte: number) => boolean): number {
  const numbers = new Int16Array(512).fill(-1);
  let numClasses = 0;
  for (let byte = 0; byte < 256; byte++) {
    const key = 2 * classes[byte]! + (isInside(byte) ? 1 : 0);
    if (numbers[key] === -1) numbers[key] = numClasses++;
    classes[byte] = numbers[key]!;
  }
  return numClasses;
}

function classesIn(ranges: readonly ByteRange[], classes: Uint8Array, isAllowed: readonly boolean[]): number[] {
  const found = new Set<number>();
  for (const [first, last] of ranges) {
    for (let byte = first; byte <= last; byte++) if (isAllowed[byte]) found.add(classes[byte]!);
  }
  return [...found];
}
