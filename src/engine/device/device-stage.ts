import type { Bundle } from "../../bundle/bundle.js";
import { Histogram } from "../../core/histogram.js";
import type { Kernels } from "../../core/kernels.js";
import { MblmError } from "../../errors.js";
import {
  allocateTensor,
  type Device,
  type DeviceBackend,
  type DeviceBinding,
  type DeviceBuffer,
  type DeviceSession,
  type DeviceTensor,
} from "../../runtime/device.js";
import { STEP_BOUNDS } from "../stage-runner.js";
import { bucketOf, MAX_SMALL_ROWS } from "./buckets.js";
import { DeviceStates } from "./device-states.js";
import { InputBlocks } from "./input-blocks.js";
import { StageKernels } from "./stage-kernels.js";

/** Bindings kept for chunks; remainders of odd lengths are what would grow without a bound. */
const MAX_CHUNK_BINDINGS = 64;

/** What the host writes for a run: ids of all steps; of each row its place and position; of each output its row, and where its context goes. */
type Input = "ids" | "place" | "position" | "contextRow" | "outputRow";

export interface DeviceStageOptions {
  /** Slots and one place for rows that only fill a batch. */
  readonly numPlaces: number;
  /** Most rows of a batch. */
  readonly maxRows: number;
  /** Most steps of a chunk. */
  readonly maxSteps: number;
  /** Most context vectors of a chunk. */
  readonly maxChunkOutputs: number;
  readonly weights: Readonly<Record<string, DeviceTensor>>;
  /** Context vectors from the parent, `[≥ numPlaces, P_i · D_i]`; undefined for stage 0. */
  readonly contexts: DeviceTensor | undefined;
  /** Context vectors for the children, `[rows, P_{i+1} · D_{i+1}]`. */
  readonly childContexts: DeviceTensor;
  /** A row of `childContexts` that nobody reads. */
  readonly scratchContext: number;
  readonly kernels: Kernels;
}

/** A stage above the local one on a device: one step of many sequences, or many steps of one. */
export class DeviceStage {
  readonly states: DeviceStates;
  readonly seconds = new Histogram(STEP_BOUNDS);
  readonly #device: Device;
  readonly #bytesPerStep: number;
  readonly #stepSession: DeviceSession;
  readonly #chunkSession: DeviceSession;
  readonly #inputs: InputBlocks<Input>;
  readonly #done: DeviceTensor & { readonly buffer: DeviceBuffer };
  readonly #batches = new Map<number, DeviceBinding>();
  readonly #chunks = new Map<string, DeviceBinding>();
  /** What runs batches of the stage, once recorded. */
  readonly kernels: StageKernels;
  /** Whether the fused kernel has run since it was last asked whether it gave up. */
  #isUnchecked = false;

  constructor(
    bundle: Bundle,
    private readonly index: number,
    backend: DeviceBackend,
    private readonly options: DeviceStageOptions,
  ) {
    const { numPlaces, maxRows, maxSteps } = options;
    const manifest = bundle.manifest.cuda!.stages[index]!;
    const { device } = backend;
    this.#device = device;
    this.#bytesPerStep = bundle.manifest.stages[index]!.bytes_per_step;
    this.states = new DeviceStates(manifest.states, device, numPlaces);
    this.#stepSession = backend.openSession(bundle.path(manifest.step_graph));
    this.#chunkSession = backend.openSession(bundle.path(manifest.chunk_graph));
    const mostOutputs = Math.max(maxRows, maxSteps);
    this.#inputs = new InputBlocks(device, this.#counts(mostOutputs, maxRows, mostOutputs));
    this.#done = allocateTensor(device, "int32", [1]);
    this.kernels = new StageKernels(bundle, backend, {
      fused: manifest.fused,
      mustHaveFused: false,
      ports: (rows) => this.#ports(rows, rows, rows),
      operators: (rows) => this.#batch(rows),
      sendTrial: (rows) => this.#sendTrial(rows),
    });
  }

  /** Writes id number `k` of step number `step` of the next run; steps of a batch are its rows. */
  setId(step: number, k: number, id: number): void {
    this.#inputs.values.ids[step * this.#bytesPerStep + k] = id;
  }

  /** Writes whose step row number `row` of the next batch is, which one, and where its context goes. */
  setRow(row: number, place: number, position: number, contextRow: number): void {
    this.#inputs.values.place[row] = place;
    this.#inputs.values.position[row] = position;
    this.#inputs.values.contextRow[row] = contextRow;
  }

  /** One step of every row that was written. */
  runBatch(rows: number): void {
    const bucket = bucketOf(rows);
    for (let row = rows; row < bucket; row++) this.#fillRow(row);
    this.#sendBatch(bucket);
    this.kernels.binding(bucket).run();
    this.#isUnchecked ||= this.kernels.isFused(bucket);
  }

  /**
   * Records the graphs of every batch size, on a place that nobody uses, and chooses the kernels: before there are sequences.
   * What has most rows comes first: ONNX Runtime spreads the bias of a product by a vector of ones that it keeps, and lets go of
   * when a longer one is needed; what has been recorded would go on reading it.
   *
   * @throws MblmError `runtime_unavailable` when the fused kernel is asked for and cannot run
   */
  record(buckets: readonly number[]): void {
    this.#runLongestChunk();
    for (const bucket of buckets.toReversed()) {
      for (let row = 0; row < bucket; row++) this.#fillRow(row);
      this.runBatch(bucket);
    }
    this.#device.synchronize();
    this.kernels.choose(this.options.kernels, buckets);
  }

  /**
   * To be asked where a batch may have failed unseen: the contexts of one that did are no numbers. Waits for the device.
   *
   * @throws MblmError `engine_failed` when the fused kernel gave up; it is not used any more then
   */
  check(): void {
    if (!this.#isUnchecked) return;
    this.#isUnchecked = false;
    if (!this.kernels.hasFailed()) return;
    this.kernels.abandon();
    throw new MblmError(
      "engine_failed",
      `The fused kernel of stage ${this.index} gave up waiting for a part of itself; it is not used any more.`,
    );
  }

  /** A batch that is timed: states are read from memory, of as many places as there are. */
  #sendTrial(rows: number): void {
    for (let row = 0; row < rows; row++) {
      this.#fillRow(row);
      this.#inputs.values.place[row] = Math.min(row, this.options.numPlaces - 1);
      this.#inputs.values.position[row] = 1;
    }
    this.#sendBatch(rows);
  }

  #sendBatch(rows: number): void {
    for (let row = 0; row < rows; row++) this.#inputs.values.outputRow[2 * row] = row;
    this.#send(rows, rows, rows);
  }

  #runLongestChunk(): void {
    const { maxChunkOutputs: steps, numPlaces, scratchContext } = this.options;
    for (let step = 0; step < steps; step++) {
      for (let k = 0; k < this.#bytesPerStep; k++) this.setId(step, k, 0);
    }
    this.runChunk(numPlaces - 1, 0, steps, new Array<number>(steps).fill(scratchContext));
  }

  /** A row that is computed along and read by nobody. */
  #fillRow(row: number): void {
    this.setRow(row, this.options.numPlaces - 1, 0, this.options.scratchContext);
    for (let k = 0; k < this.#bytesPerStep; k++) this.setId(row, k, 0);
  }

  /**
   * Steps of one sequence whose ids were written.
   *
   * @param position of the first step in the stage's sequence
   * @param contextRows where contexts go: one row takes that of the last step, as many rows as steps take all
   */
  runChunk(place: number, position: number, steps: number, contextRows: readonly number[]): void {
    this.#inputs.values.place[0] = place;
    this.#inputs.values.position[0] = position;
    for (const [k, row] of contextRows.entries()) {
      this.#inputs.values.contextRow[k] = row;
      this.#inputs.values.outputRow[2 * k] = steps - contextRows.length + k;
    }
    this.#send(steps, 1, contextRows.length);
    this.#device.mark(0);
    this.#chunk(steps, contextRows.length).run();
    this.#device.mark(1);
    this.#device.synchronize();
    this.seconds.observe(this.#device.secondsBetween(0, 1));
  }

  #send(steps: number, rows: number, outputs: number): void {
    this.#inputs.send(this.#counts(steps, rows, outputs));
  }

  #counts(steps: number, rows: number, outputs: number): Record<Input, number> {
    return {
      ids: steps * this.#bytesPerStep,
      place: rows,
      position: rows,
      contextRow: outputs,
      outputRow: 2 * outputs, // int64
    };
  }

  #batch(rows: number): DeviceBinding {
    let binding = this.#batches.get(rows);
    if (!binding) {
      const session = rows <= MAX_SMALL_ROWS ? this.#stepSession : this.#chunkSession;
      binding = session.bind(this.#ports(rows, rows, rows), true);
      this.#batches.set(rows, binding);
    }
    return binding;
  }

  #chunk(steps: number, outputs: number): DeviceBinding {
    const key = `${steps} ${outputs}`;
    let binding = this.#chunks.get(key);
    if (!binding) {
      if (this.#chunks.size >= MAX_CHUNK_BINDINGS) this.#evictOldestChunk();
      binding = this.#chunkSession.bind(this.#ports(1, steps, outputs), false);
      this.#chunks.set(key, binding);
    }
    return binding;
  }

  #evictOldestChunk(): void {
    const [key, binding] = this.#chunks.entries().next().value!;
    binding.dispose();
    this.#chunks.delete(key);
  }

  #ports(rows: number, steps: number, outputs: number): Record<string, DeviceTensor> {
    const { weights, contexts, childContexts } = this.options;
    const counts = this.#counts(steps, rows, outputs);
    return {
      ...weights,
      ...this.states.ports,
      ids: this.#inputs.port(counts, "ids", steps, this.#bytesPerStep),
      slot: this.#inputs.port(counts, "place", rows),
      position: this.#inputs.port(counts, "position", rows),
      context_row: this.#inputs.port(counts, "contextRow", outputs),
      output_row: this.#inputs.portOfInt64(counts, "outputRow", outputs),
      child_contexts: childContexts,
      done: this.#done,
      ...(contexts === undefined ? {} : { contexts }),
    };
  }

  dispose(): void {
    this.kernels.dispose();
    for (const binding of [...this.#batches.values(), ...this.#chunks.values()]) binding.dispose();
    this.#stepSession.dispose();
    this.#chunkSession.dispose();
    this.states.dispose();
    this.#inputs.dispose();
    this.#done.buffer.free();
  }
}
