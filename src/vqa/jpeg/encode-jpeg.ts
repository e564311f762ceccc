import { CodeTable, EntropyWriter } from "./entropy-writer.js";
import { type Plane, toPlanes } from "./planes.js";
import { quantisedBlock } from "./quantised-block.js";
import {
  END_OF_IMAGE,
  frameSegment,
  huffmanSegments,
  quantisationSegments,
  restartMarker,
  restartSegment,
  START_OF_FILE,
  scanSegment,
} from "./segments.js";
import { CHROMINANCE_AC, CHROMINANCE_DC, LUMINANCE_AC, LUMINANCE_DC, quantisationSteps } from "./tables.js";

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
    ...START_OF_FILE,
    ...quantisationSegments(luminance, chrominance),
    ...frameSegment(width, height),
    ...[0, 1].flatMap((i) => huffmanSegments(i, DC[i]!.table, AC[i]!.table)),
    ...(options.restartBlocks > 0 ? restartSegment(options.restartBlocks) : []),
    ...scanSegment(components),
    ...scan(components, Math.ceil(width / UNIT), Math.ceil(height / UNIT), options.restartBlocks),
    ...END_OF_IMAGE,
  ]);
}

/** All units of the image, from left to right and top to bottom. */
function scan(components: readonly Component[], columns: number, rows: number, restartBlocks: number): number[] {
  const writer = new EntropyWriter();
  for (let unit = 0; unit < columns * rows; unit++) {
    if (restartBlocks > 0 && unit > 0 && unit % restartBlocks === 0) {
      writer.flush();
      writer.bytes.push(...restartMarker(unit / restartBlocks - 1));
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
    const block = quantisedBlock(component.plane, component.steps, x, y, component.lastDc);
    writer.block(block, component.lastDc, DC[tables], AC[tables]);
    component.lastDc = block[0]!;
  }
}
