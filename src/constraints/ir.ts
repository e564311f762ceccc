/** Bytes from the first to the second, both included. 0 … 255 */
export type ByteRange = readonly [number, number];

/**
 * A regular language over bytes. Nodes may be shared; `numNodes` bounds the NFA nodes that the language takes with
 * everything written out, so that a language that is too large is known before it is built. It may be Infinity.
 */
export type Ir = BytesIr | ConcatIr | AlternateIr | RepeatIr | SeriesIr;

/** One byte of the set. */
export interface BytesIr {
  readonly kind: "bytes";
  readonly ranges: readonly ByteRange[];
  readonly numNodes: number;
}

/** The parts one after another; none = the empty string. */
export interface ConcatIr {
  readonly kind: "concat";
  readonly parts: readonly Ir[];
  readonly numNodes: number;
}

/** One of the options; none = nothing at all matches. */
export interface AlternateIr {
  readonly kind: "alternate";
  readonly options: readonly Ir[];
  readonly numNodes: number;
}

/** `min` to `max` times the body, with the separator between any two. */
export interface RepeatIr {
  readonly kind: "repeat";
  readonly body: Ir;
  readonly min: number;
  /** Infinity = no bound */
  readonly max: number;
  readonly separator: Ir;
  readonly numNodes: number;
}

/** The items in order, those that are not required left out at will, with the separator between any two present. */
export interface SeriesIr {
  readonly kind: "series";
  readonly items: readonly SeriesItem[];
  readonly separator: Ir;
  readonly numNodes: number;
}

export interface SeriesItem {
  readonly ir: Ir;
  readonly isRequired: boolean;
}

export const EMPTY: Ir = concat([]);
export const NOTHING: Ir = alternate([]);

const singleBytes: readonly Ir[] = Array.from({ length: 256 }, (_, byte) => bytes([[byte, byte]]));

/** @param ranges in any order; must hold at least one byte */
export function bytes(ranges: readonly ByteRange[]): Ir {
  return { kind: "bytes", ranges, numNodes: 1 };
}

/** The UTF-8 bytes of a text without lone surrogates. */
export function literal(text: string): Ir {
  return concat(Array.from(Buffer.from(text, "utf8"), (byte) => singleBytes[byte]!));
}

/** One of the ASCII characters. */
export function oneOf(characters: string): Ir {
  return bytes(Array.from(Buffer.from(characters, "latin1"), (byte) => [byte, byte]));
}

export function concat(parts: readonly Ir[]): Ir {
  return { kind: "concat", parts, numNodes: sumNodes(parts) };
}

export function alternate(options: readonly Ir[]): Ir {
  return { kind: "alternate", options, numNodes: Math.max(1, sumNodes(options) + options.length - 1) };
}

export function optional(ir: Ir): Ir {
  return alternate([ir, EMPTY]);
}

/** @param max at least `min`; Infinity = no bound */
export function repeat(body: Ir, min: number, max: number, separator: Ir = EMPTY): Ir {
  const numCopies = Math.max(min, max === Infinity ? 1 : max);
  const numNodes = 1 + numCopies * (body.numNodes + separator.numNodes + 1);
  return { kind: "repeat", body, min, max, separator, numNodes };
}

export function series(items: readonly SeriesItem[], separator: Ir): Ir {
  const numNodes = items.reduce((total, { ir }) => total + ir.numNodes + separator.numNodes + 2, 0);
  return { kind: "series", items, separator, numNodes };
}

function sumNodes(parts: readonly Ir[]): number {
  return parts.reduce((total, { numNodes }) => total + numNodes, 0);
}
