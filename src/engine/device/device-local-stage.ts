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
import { InputBlock } from "./input-block.js";
import { StageKernels } from "./stage-kernels.js";

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

type Allocated = DeviceTensor & { readonly buffer: DeviceBuffer };

/** The local stage on a device: a whole patch of every row, with the choice of its bytes. */
export class DeviceLocalStage {
  readonly #smallSession: DeviceSession;
  readonly #session: DeviceSession;
  /** Of a recurrent stage: it begins anew at every patch, so these are scratch, one place per row. */
  readonly #states: DeviceStates;
  readonly #rows: InputBlock; // B · ROW_WORDS
  readonly #contextRow: InputBlock; // B
  readonly #first: InputBlock; // B
  readonly #forced: InputBlock; // B · P
  /** 0, 1, 2, …; zeros; ones. */
  readonly #constants: { readonly rowIndex: InputBlock; readonly zeros: InputBlock; readonly ones: InputBlock };
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
    this.#rows = new InputBlock(device, maxRows * ROW_WORDS);
    this.#contextRow = new InputBlock(device, maxRows);
    this.#first = new InputBlock(device, maxRows);
    this.#forced = new InputBlock(device, maxRows * patchLength);
    this.#constants = {
      rowIndex: new InputBlock(device, maxRows),
      zeros: new InputBlock(device, maxRows),
      ones: new InputBlock(device, maxRows),
    };
    this.#constants.rowIndex.values.forEach((_, row, values) => {
      values[row] = row;
    });
    this.#constants.ones.values.fill(1);
    for (const block of Object.values(this.#constants)) block.send(maxRows);
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
    this.#rows.values.set(batch.words.subarray(0, numRows * ROW_WORDS));
    for (let row = 0; row < numRows; row++) {
      this.#rows.values[row * ROW_WORDS + ROW.slot] = places[row]!;
      this.#contextRow.values[row] = contextRows[row]!;
      this.#first.values[row] = batch.first(row);
    }
    this.#forced.values.set(batch.forced.subarray(0, numRows * patchLength));
    for (let row = numRows; row < bucket; row++) this.#fillRow(row);
    this.#rows.send(bucket * ROW_WORDS);
    this.#contextRow.send(bucket);
    this.#first.send(bucket);
    this.#forced.send(bucket * patchLength);
    this.kernels.binding(bucket).run();
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

  #abandonFused(): never {
    this.kernels.abandon();
    throw new MblmError(
      "engine_failed",
      "The fused kernel of the local stage gave up waiting for a part of itself; it is not used any more.",
    );
  }

  /** A batch that nobody reads. */
  #fillRows(bucket: number): void {
    for (let row = 0; row < bucket; row++) this.#fillRow(row);
    this.#rows.send(bucket * ROW_WORDS);
    this.#contextRow.send(bucket);
    this.#first.send(bucket);
    this.#forced.send(bucket * this.#patchLength);
  }

  /** A row that is computed along and read by nobody. */
  #fillRow(row: number): void {
    const { numPlaces } = this.options;
    const start = row * ROW_WORDS;
    this.#rows.values.fill(0, start, start + ROW_WORDS);
    this.#rows.values[start + ROW.slot] = numPlaces - 1;
    this.#rows.values[start + ROW.numForced] = this.#patchLength;
    this.#contextRow.values[row] = numPlaces - 1;
    this.#first.values[row] = 0;
    this.#forced.values.fill(0, row * this.#patchLength, (row + 1) * this.#patchLength);
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
    return {
      ...this.options.weights,
      ...this.#states.portsOfFirst(rows),
      rows: this.#rows.port(rows, ROW_WORDS),
      slot: this.#contextRow.port(rows),
      first: this.#first.port(rows),
      forced: this.#forced.port(rows, patchLength),
      bias: this.#tables.bias,
      counts: this.#tables.counts,
      id_flags: this.#tables.idFlags,
      cursor: { ...this.#cursor, shape: [rows] },
      ids_out: { ...this.#ids, shape: [rows, patchLength] },
      logits_out: { ...this.#logits, shape: [rows, patchLength, this.#vocabularySize] },
      contexts: this.options.contexts,
      row_index: this.#constants.rowIndex.port(rows),
      position_0: this.#constants.zeros.port(rows),
      position_1: this.#constants.ones.port(rows),
      done: { ...this.#done, shape: [rows] },
    };
  }

  dispose(): void {
    this.kernels.dispose();
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#smallSession.dispose();
    this.#session.dispose();
    this.#states.dispose();
    const blocks = [this.#rows, this.#contextRow, this.#first, this.#forced, ...Object.values(this.#constants)];
    for (const block of blocks) block.dispose();
    const tensors = [...Object.values(this.#tables), this.#cursor, this.#ids, this.#logits, this.#done];
    for (const { buffer } of tensors) buffer.free();
  }
}
