import type { HuffmanTable } from "./tables.js";

/** Markers and segments of baseline files with Y at full and Cb and Cr at half the resolution. */

export const START_OF_FILE: readonly number[] = [
  0xff,
  0xd8,
  ...segment(0xe0, [...[..."JFIF\0"].map((character) => character.charCodeAt(0)), 1, 1, 0, 0, 1, 0, 1, 0, 0]),
];
export const END_OF_IMAGE: readonly number[] = [0xff, 0xd9];

/** Steps in zigzag order; table 0 is that of luminance. */
export function quantisationSegments(luminance: readonly number[], chrominance: readonly number[]): number[] {
  return [...segment(0xdb, [0, ...luminance]), ...segment(0xdb, [1, ...chrominance])];
}

/** Components 1 to 3 are Y, Cb and Cr. */
export function frameSegment(width: number, height: number): number[] {
  return segment(0xc0, [8, ...word(height), ...word(width), 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
}

export function huffmanSegments(number: number, dc: HuffmanTable, ac: HuffmanTable): number[] {
  return [
    ...segment(0xc4, [number, ...dc.counts, ...dc.symbols]),
    ...segment(0xc4, [16 + number, ...ac.counts, ...ac.symbols]),
  ];
}

/** A marker follows every so many units. */
export function restartSegment(units: number): number[] {
  return segment(0xdd, word(units));
}

/** `index` counts the markers of a scan from 0. */
export function restartMarker(index: number): readonly [number, number] {
  return [0xff, 0xd0 + (index % 8)];
}

/** Before the data of some components, each coded with the Huffman tables of that number. */
export function scanSegment(components: readonly { readonly id: number; readonly tables: number }[]): number[] {
  return segment(0xda, [components.length, ...components.flatMap(({ id, tables }) => [id, tables * 17]), 0, 63, 0]);
}

function segment(marker: number, content: readonly number[]): number[] {
  return [0xff, marker, ...word(content.length + 2), ...content];
}

function word(value: number): number[] {
  return [value >> 8, value & 0xff];
}
