import { CodeTable, EntropyWriter } from "./entropy-writer.js";
import { forwardDct } from "./forward-dct.js";
import { type Plane, toPlanes } from "./planes.js";
import {
  BLOCK,
  CHROMINANCE_AC,
  CHROMINANCE_DC,
  type HuffmanTable,
  LUMINANCE_AC,
  LUMINANCE_DC,
  quantisationSteps,
  ZIGZAG,
} from "./tables.js";

export interface JpegOptions {
  /** 1–95. */
  readonly quality: number;
  /** A restart marker follows every so many units of 16 × 16 pixels; 0 = none. */
  readonly restartBlocks: number;
}

/** One component on its way: what it is coded with, and the first coefficient of its latest block. */
interface Component {
  readonly id: number;
  /** Blocks per unit in each direction. */
  readonly sampling: 1 | 2;
  readonly tables: 0 | 1;
  readonly plane: Plane;
  readonly steps: readonly number[];
  lastDc: number;
}

const DC = [new CodeTable(LUMINANCE_DC), new CodeTable(CHROMINANCE_DC)] as const;
const AC = [new CodeTable(LUMINANCE_AC), new CodeTable(CHROMINANCE_AC)] as const;
const UNIT = 16;

/**
 * The JPEG file that Pillow (libjpeg-turbo) writes for the same pixels, byte for byte: baseline, 4:2:0, standard Huffman
 * tables. Models that read JPEG files were trained on exactly those.
 *
 * @param rgb planar, 3 · height · width bytes
 */
export function encodeJpeg(rgb: Uint8Array, width: number, height: number, options: JpegOptions): Uint8Array {
  const [luminance, chrominance] = quantisationSteps(options.quality);
  const [y, cb, cr] = toPlanes(rgb, width, height);
  const components: Component[] = [
    { id: 1, sampling: 2, tables: 0, plane: y, steps: luminance, lastDc: 0 },
    { id: 2, sampling: 1, tables: 1, plane: cb, steps: chrominance, lastDc: 0 },
    { id: 3, sampling: 1, tables: 1, plane: cr, steps: chrominance, lastDc: 0 },
  ];
  return Uint8Array.from([
    ...[0xff, 0xd8],
    ...segment(0xe0, [...ascii("JFIF\0"), 1, 1, 0, 0, 1, 0, 1, 0, 0]),
    ...segment(0xdb, [0, ...luminance]),
    ...segment(0xdb, [1, ...chrominance]),
    ...segment(0xc0, [8, ...word(height), ...word(width), 3, ...components.flatMap(frameEntry)]),
    ...[0, 1].flatMap((i) => [...huffmanSegment(i, DC[i]!.table), ...huffmanSegment(16 + i, AC[i]!.table)]),
    ...(options.restartBlocks > 0 ? segment(0xdd, word(options.restartBlocks)) : []),
    ...segment(0xda, [3, ...components.flatMap(({ id, tables }) => [id, tables * 17]), 0, 63, 0]),
    ...scan(components, Math.ceil(width / UNIT), Math.ceil(height / UNIT), options.restartBlocks),
    ...[0xff, 0xd9],
  ]);
}

/** All units of the image, from left to right and top to bottom. */
function scan(components: readonly Component[], columns: number, rows: number, restartBlocks: number): number[] {
  const writer = new EntropyWriter();
  for (let unit = 0; unit < columns * rows; unit++) {
    if (restartBlocks > 0 && unit > 0 && unit % restartBlocks === 0) {
      writer.flush();
      writer.bytes.push(0xff, 0xd0 + ((unit / restartBlocks - 1) % 8));
      for (const component of components) component.lastDc = 0;
    }
    for (const component of components) writeUnit(writer, component, unit % columns, Math.floor(unit / columns));
  }
  writer.flush();
  return writer.bytes;
}

function writeUnit(writer: EntropyWriter, component: Component, column: number, row: number): void {
  const { sampling, tables } = component;
  for (let i = 0; i < sampling * sampling; i++) {
    const x = column * sampling + (i % sampling);
    const y = row * sampling + Math.floor(i / sampling);
    const block = quantisedBlock(component, x, y);
    writer.block(block, component.lastDc, DC[tables], AC[tables]);
    component.lastDc = block[0]!;
  }
}

/** In zigzag order. A block that lies outside the plane is flat, like the one before it. */
function quantisedBlock({ plane, steps, lastDc }: Component, x: number, y: number): Int32Array {
  const result = new Int32Array(BLOCK);
  if (8 * x >= plane.width || 8 * y >= plane.height) {
    result[0] = lastDc;
    return result;
  }
  const block = new Int32Array(BLOCK);
  for (let i = 0; i < BLOCK; i++) {
    block[i] = plane.samples[(8 * y + (i >> 3)) * plane.width + 8 * x + (i & 7)]! - 128;
  }
  forwardDct(block);
  for (let i = 0; i < BLOCK; i++) result[i] = quantise(block[ZIGZAG[i]!]!, 8 * steps[i]!);
  return result;
}

/** To the nearest multiple, halves away from zero. */
function quantise(value: number, step: number): number {
  return Math.sign(value) * Math.floor((Math.abs(value) + (step >> 1)) / step);
}

function frameEntry({ id, sampling, tables }: Component): number[] {
  return [id, sampling * 17, tables];
}

function huffmanSegment(id: number, { counts, symbols }: HuffmanTable): number[] {
  return segment(0xc4, [id, ...counts, ...symbols]);
}

function segment(marker: number, content: readonly number[]): number[] {
  return [0xff, marker, ...word(content.length + 2), ...content];
}

function word(value: number): number[] {
  return [value >> 8, value & 0xff];
}

function ascii(text: string): number[] {
  return [...text].map((character) => character.charCodeAt(0));
}
