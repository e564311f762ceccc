import type { Bundle } from "../../bundle/bundle.js";
import type { Kernels } from "../../core/kernels.js";
import { MblmError } from "../../errors.js";
import {
  allocateTensor,
  type DeviceBackend,
  type DeviceBinding,
  type DeviceBuffer,
  type DeviceSession,
  type DeviceTensor,
} from "../../runtime/device.js";
import {
  ID_FAILED,
  type PatchBatch,
  type PatchOutput,
  ROW,
  ROW_FLAG,
  ROW_WORDS,
  type SamplingTables,
} from "../patch-batch.js";
import { bucketOf, MAX_SMALL_ROWS } from "./buckets.js";
import { DeviceStates } from "./device-states.js";
import { InputBlocks } from "./input-blocks.js";
import { StageKernels } from "./stage-kernels.js";

/** What the host writes for a run: of each row what choosing needs, its context row, its first byte, and outputs that are forced. */
type Input = "rows" | "contextRow" | "first" | "forced";

export interface DeviceLocalStageOptions {
  /** Slots and one place for rows that only fill a batch: of sampling tables. */
  readonly numPlaces: number;
  /** Most rows of a batch, a power of two. */
  readonly maxRows: number;
  readonly weights: Readonly<Record<string, DeviceTensor>>;
  /** `[rows, P · D]`; row `numPlaces − 1` is for rows that only fill a batch. */
  readonly contexts: DeviceTensor;
  readonly kernels: Kernels;
}

/** Of a run, on the device's clock. */
const MARK = { start: 3, end: 4 } as const;

type Allocated = DeviceTensor & { readonly buffer: DeviceBuffer };

/** The local stage on a device: a whole patch of every row, with the choice of its bytes. */
export class DeviceLocalStage {
  readonly #smallSession: DeviceSession;
  readonly #session: DeviceSession;
  /** Of a recurrent stage: it begins anew at every patch, so these are scratch, one place per row. */
  readonly #states: DeviceStates;
  readonly #inputs: InputBlocks<Input>;
  /** 0, 1, 2, …; zeros; ones. */
  readonly #constants: InputBlocks<"rowIndex" | "zeros" | "ones">;
  readonly #tables: { readonly bias: Allocated; readonly counts: Allocated; readonly idFlags: Allocated };
  readonly #cursor: Allocated;
  readonly #ids: Allocated;
  readonly #logits: Allocated;
  readonly #done: Allocated;
  readonly #output: { readonly ids: Int32Array; readonly logits: Float32Array };
  readonly #bindings = new Map<number, DeviceBinding>();
  /** What runs patches, once recorded. */
  readonly kernels: StageKernels;
  readonly #patchLength: number;
  readonly #vocabularySize: number;

  constructor(
    bundle: Bundle,
    private readonly backend: DeviceBackend,
    private readonly options: DeviceLocalStageOptions,
  ) {
    const { numPlaces, maxRows } = options;
    const { device } = backend;
    const manifest = bundle.manifest.cuda!.stages.at(-1)!;
    const patchLength = bundle.manifest.stages.at(-1)!.seq_len;
    const vocabularySize = bundle.info.vocabularySize;
    this.#patchLength = patchLength;
    this.#vocabularySize = vocabularySize;
    this.#states = new DeviceStates(manifest.states, device, maxRows);
    this.#smallSession = backend.openSession(bundle.path(manifest.step_graph));
    this.#session = backend.openSession(bundle.path(manifest.chunk_graph));
    this.#inputs = new InputBlocks(device, this.#counts(maxRows));
    this.#constants = new InputBlocks(device, constantsOf(maxRows));
    this.#constants.values.rowIndex.forEach((_, row, values) => {
      values[row] = row;
    });
    this.#constants.values.ones.fill(1);
    this.#constants.send(constantsOf(maxRows));
    this.#tables = {
      bias: allocateTensor(device, "float64", [numPlaces, vocabularySize]),
      counts: allocateTensor(device, "int32", [numPlaces, vocabularySize]),
      idFlags: allocateTensor(device, "uint8", [numPlaces, vocabularySize]),
    };
    this.#cursor = allocateTensor(device, "int32", [maxRows]);
    this.#ids = allocateTensor(device, "int32", [maxRows, patchLength]);
    this.#logits = allocateTensor(device, "float32", [maxRows, patchLength, vocabularySize]);
    this.#done = allocateTensor(device, "int32", [maxRows]);
    this.kernels = new StageKernels(bundle, backend, {
      fused: manifest.fused,
      mustHaveFused: true,
      ports: (rows) => this.#ports(rows),
      operators: (rows) => this.#binding(rows),
      sendTrial: (rows) => this.#fillRows(rows),
    });
    this.#output = {
      ids: new Int32Array(maxRows * patchLength),
      logits: new Float32Array(maxRows * patchLength * vocabularySize),
    };
  }

  setSamplingTables(place: number, tables: SamplingTables): void {
    const { device } = this.backend;
    const offset = BigInt(place * this.#vocabularySize);
    device.upload(this.#tables.bias.address + 8n * offset, tables.bias);
    device.upload(this.#tables.counts.address + 4n * offset, tables.counts);
    device.upload(this.#tables.idFlags.address + offset, tables.idFlags);
  }

  /**
   * @param places of the batch's rows, for their sampling tables
   * @param contextRows of the batch's rows
   * @returns valid until the next call
   */
  run(batch: PatchBatch, places: Int32Array, contextRows: Int32Array): PatchOutput {
    const { numRows } = batch;
    const bucket = bucketOf(numRows);
    const patchLength = this.#patchLength;
    this.#inputs.values.rows.set(batch.words.subarray(0, numRows * ROW_WORDS));
    for (let row = 0; row < numRows; row++) {
      this.#inputs.values.rows[row * ROW_WORDS + ROW.slot] = places[row]!;
      this.#inputs.values.contextRow[row] = contextRows[row]!;
      this.#inputs.values.first[row] = batch.first(row);
    }
    this.#inputs.values.forced.set(batch.forced.subarray(0, numRows * patchLength));
    for (let row = numRows; row < bucket; row++) this.#fillRow(row);
    this.#inputs.send(this.#counts(bucket));
    const { device } = this.backend;
    device.mark(MARK.start);
    this.kernels.binding(bucket).run();
    device.mark(MARK.end);
    const output = this.#read(batch);
    if (this.kernels.isFused(bucket) && output.ids.subarray(0, numRows * patchLength).includes(ID_FAILED))
      this.#abandonFused();
    return output;
  }

  /**
   * Records the graphs of every batch size, on a place that nobody uses, and chooses the kernels.
   *
   * @throws MblmError `runtime_unavailable` when the fused kernel is asked for and cannot run
   */
  record(buckets: readonly number[]): void {
    // The largest first: see DeviceStage's.
    for (const bucket of buckets.toReversed()) {
      this.#fillRows(bucket);
      this.#binding(bucket).run();
    }
    this.backend.device.synchronize();
    this.kernels.choose(this.options.kernels, buckets);
  }

  /** Seconds that the last run took on the device. */
  get runSeconds(): number {
    return this.backend.device.secondsBetween(MARK.start, MARK.end);
  }

  #abandonFused(): never {
    this.kernels.abandon();
    throw new MblmError(
      "engine_failed",
      "The fused kernel of the local stage gave up waiting for a part of itself; it is not used any more.",
    );
  }

  #counts(rows: number): Record<Input, number> {
    return { rows: rows * ROW_WORDS, contextRow: rows, first: rows, forced: rows * this.#patchLength };
  }

  /** A batch that nobody reads. */
  #fillRows(bucket: number): void {
    for (let row = 0; row < bucket; row++) this.#fillRow(row);
    this.#inputs.send(this.#counts(bucket));
  }

  /** A row that is computed along and read by nobody. */
  #fillRow(row: number): void {
    const { numPlaces } = this.options;
    const start = row * ROW_WORDS;
    this.#inputs.values.rows.fill(0, start, start + ROW_WORDS);
    this.#inputs.values.rows[start + ROW.slot] = numPlaces - 1;
    this.#inputs.values.rows[start + ROW.numForced] = this.#patchLength;
    this.#inputs.values.contextRow[row] = numPlaces - 1;
    this.#inputs.values.first[row] = 0;
    this.#inputs.values.forced.fill(0, row * this.#patchLength, (row + 1) * this.#patchLength);
  }

  /** The one read of a patch: its ids; and the logits of rows that asked for them. */
  #read(batch: PatchBatch): PatchOutput {
    const { device } = this.backend;
    const { ids, logits } = this.#output;
    device.download(this.#ids.address, ids.subarray(0, batch.numRows * this.#patchLength));
    const size = this.#patchLength * this.#vocabularySize;
    for (let row = 0; row < batch.numRows; row++) {
      if ((batch.words[row * ROW_WORDS + ROW.flags]! & ROW_FLAG.logits) === 0) continue;
      device.download(this.#logits.address + BigInt(4 * row * size), logits.subarray(row * size, (row + 1) * size));
    }
    return this.#output;
  }

  #binding(rows: number): DeviceBinding {
    let binding = this.#bindings.get(rows);
    if (!binding) {
      const session = rows <= MAX_SMALL_ROWS ? this.#smallSession : this.#session;
      binding = session.bind(this.#ports(rows), true);
      this.#bindings.set(rows, binding);
    }
    return binding;
  }

  #ports(rows: number): Record<string, DeviceTensor> {
    const patchLength = this.#patchLength;
    const counts = this.#counts(rows);
    const constants = constantsOf(this.options.maxRows);
    return {
      ...this.options.weights,
      ...this.#states.portsOfFirst(rows),
      rows: this.#inputs.port(counts, "rows", rows, ROW_WORDS),
      slot: this.#inputs.port(counts, "contextRow", rows),
      first: this.#inputs.port(counts, "first", rows),
      forced: this.#inputs.port(counts, "forced", rows, patchLength),
      bias: this.#tables.bias,
      counts: this.#tables.counts,
      id_flags: this.#tables.idFlags,
      cursor: { ...this.#cursor, shape: [rows] },
      ids_out: { ...this.#ids, shape: [rows, patchLength] },
      logits_out: { ...this.#logits, shape: [rows, patchLength, this.#vocabularySize] },
      contexts: this.options.contexts,
      row_index: this.#constants.port(constants, "rowIndex", rows),
      position_0: this.#constants.port(constants, "zeros", rows),
      position_1: this.#constants.port(constants, "ones", rows),
      done: { ...this.#done, shape: [rows] },
    };
  }

  dispose(): void {
    this.kernels.dispose();
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#smallSession.dispose();
    this.#session.dispose();
    this.#states.dispose();
    this.#inputs.dispose();
    this.#constants.dispose();
    const tensors = [...Object.values(this.#tables), this.#cursor, this.#ids, this.#logits, this.#done];
    for (const { buffer } of tensors) buffer.free();
  }
}

function constantsOf(rows: number): Record<"rowIndex" | "zeros" | "ones", number> {
  return { rowIndex: rows, zeros: rows, ones: rows };
}
