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
import { LUMINANCE_AC, LUMINANCE_DC, quantisationSteps } from "./tables.js";

export interface AlignedJpegOptions {
  /** 1–95. */
  readonly quality: number;
  /** Every block begins at a multiple of so many bytes; at least 3. */
  readonly blockBytes: number;
}

const DC = new CodeTable(LUMINANCE_DC);
const AC = new CodeTable(LUMINANCE_AC);
const FILL = 0xff;
const MARKER_BYTES = 2;

/**
 * A baseline file with the coefficients of `encodeJpeg`, whose blocks can be read one by one: a scan for each component, a
 * restart marker behind every block, and fill bytes before markers, so that every block begins at a multiple of `blockBytes`.
 * Byte for byte that of `scripts/multiscale/vqa/aligned_jpeg.py`, which says more.
 *
 * The first block begins at `blockBytes - 1`: in a sequence a start id stands before the file.
 *
 * @param rgb planar, 3 · height · width bytes
 */
export function alignedJpeg(rgb: Uint8Array, width: number, height: number, options: AlignedJpegOptions): Uint8Array {
  const { quality, blockBytes } = options;
  const [luminance, chrominance] = quantisationSteps(quality);
  const file = [
    ...START_OF_FILE,
    ...quantisationSegments(luminance, chrominance),
    ...frameSegment(width, height),
    ...huffmanSegments(0, DC.table, AC.table),
    ...restartSegment(1),
  ];
  for (const [i, plane] of toPlanes(rgb, width, height).entries()) {
    const scan = scanSegment([{ id: i + 1, tables: 0 }]);
    fill(file, blockBytes, scan.length + 1);
    file.push(...scan);
    writeBlocks(file, plane, i === 0 ? luminance : chrominance, blockBytes);
  }
  return Uint8Array.from([...file, ...END_OF_IMAGE]);
}

/** A block takes one place of `blockBytes`, or as many as it needs with its marker; a row takes one more than it has blocks. */
function writeBlocks(file: number[], plane: Plane, steps: readonly number[], blockBytes: number): void {
  const [columns, rows] = [plane.width / 8, plane.height / 8];
  for (let y = 0; y < rows; y++) {
    const rowEnd = file.length + (columns + 1) * blockBytes;
    for (let x = 0; x < columns; x++) {
      file.push(...entropyCoded(quantisedBlock(plane, steps, x, y, 0)));
      fill(file, blockBytes, MARKER_BYTES + 1);
      while (x === columns - 1 && file.length + MARKER_BYTES < rowEnd) file.push(FILL);
      const isLast = x === columns - 1 && y === rows - 1;
      file.push(...(isLast ? [FILL, FILL] : restartMarker(y * columns + x)));
    }
  }
}

/** Up to where `following` bytes, the start id's included, end at a multiple. */
function fill(file: number[], multiple: number, following: number): void {
  while ((file.length + following) % multiple !== 0) file.push(FILL);
}

function entropyCoded(block: Int32Array): readonly number[] {
  const writer = new EntropyWriter();
  writer.block(block, 0, DC, AC);
  writer.flush();
  return writer.bytes;
}
