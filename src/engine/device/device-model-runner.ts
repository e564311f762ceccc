import type { Bundle } from "../../bundle/bundle.js";
import type { ByteAutomaton } from "../../core/byte-automaton.js";
import { systemClock } from "../../core/clock.js";
import type { DeviceStats } from "../../core/engine-stats.js";
import { Histogram, type HistogramCounts } from "../../core/histogram.js";
import type { Kernels } from "../../core/kernels.js";
import type { ModelInfo } from "../../core/model-info.js";
import type { StateSnapshot } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import {
  allocateTensor,
  type DeviceBackend,
  type DeviceBuffer,
  type DeviceTensor,
  tensorBytes,
} from "../../runtime/device.js";
import { firstOf, lengthWithAllSteps, nextPrefill, nextScoring } from "../../state/patch-cursor.js";
import { SlotProgress } from "../../state/slot-progress.js";
import type { LogitsVisitor, PatchRunner } from "../model-runner-interface.js";
import { PatchBatch, type PatchOutput, ROW, ROW_WORDS, type SamplingTables } from "../patch-batch.js";
import { STEP_BOUNDS } from "../stage-runner.js";
import { bucketOf, bucketsFor } from "./buckets.js";
import { DeviceAutomata } from "./device-automata.js";
import { DeviceLocalStage } from "./device-local-stage.js";
import { DeviceStage } from "./device-stage.js";
import { downloadBytes } from "./device-states.js";
import { DeviceWeights } from "./device-weights.js";
import { DEVICE_PREFILL_STEPS, MAX_SCORING_ROWS } from "./limits.js";
import { SlotMap } from "./slot-map.js";

export interface DeviceRunnerOptions {
  readonly numSlots: number;
  readonly backend: DeviceBackend;
  /** Most steps that one prefill call may take. */
  readonly maxPrefillSteps?: number;
  /** What runs small batches; `auto` when left out. */
  readonly kernels?: Kernels | undefined;
  /** Memory that was planned, by purpose, for the statistics. */
  readonly bytes?: Readonly<Record<string, number>>;
}

type Contexts = DeviceTensor & { readonly buffer: DeviceBuffer };

/**
 * Opens the bundle's graphs for a device, uploads its weights and records a graph for every batch size. What is open when it
 * fails is the backend's to release.
 *
 * @throws MblmError `bundle_invalid` when a graph does not fit the manifest, or the model gives no numbers;
 *   `runtime_unavailable` when there is too little memory, or `kernels` cannot be had; `engine_failed`
 */
export async function createDeviceRunner(bundle: Bundle, options: DeviceRunnerOptions): Promise<DeviceModelRunner> {
  const { cuda } = bundle.manifest;
  if (cuda === undefined) {
    throw new MblmError("bundle_invalid", `${bundle.dir} has no graphs for CUDA: export it with --cuda`);
  }
  const { device } = options.backend;
  const weights = await DeviceWeights.load(bundle.path(cuda.weights.file), cuda.weights, device);
  const runner = new DeviceModelRunner(bundle, weights, options);
  runner.record();
  runner.test();
  return runner;
}

/** A model whose weights and states live on a device. One run per stage and patch; only ids come back. */
export class DeviceModelRunner implements PatchRunner {
  readonly info: ModelInfo;
  readonly numSlots: number;
  readonly patchLength: number;
  readonly maxPrefillSteps: number;
  readonly initialLogits: Float32Array;
  readonly scoringLogits: Float32Array;
  readonly #backend: DeviceBackend;
  readonly #strides: readonly number[];
  readonly #stages: readonly DeviceStage[];
  readonly #local: DeviceLocalStage;
  /** Number i holds what stage i hands to its children; a row for each place, then those of patches that are scored. */
  readonly #contexts: readonly Contexts[];
  readonly #startContexts: readonly DeviceTensor[];
  readonly #automata: DeviceAutomata;
  readonly #slots: SlotMap;
  readonly #numScoringRows: number;
  readonly #progress: SlotProgress;
  readonly #places: Int32Array;
  readonly #contextRows: Int32Array;
  readonly #scoringBatch: PatchBatch;
  readonly #localSeconds = new Histogram(STEP_BOUNDS);
  readonly #plannedBytes: Readonly<Record<string, number>> | undefined;
  #recordingSeconds = 0;

  constructor(
    bundle: Bundle,
    private readonly weights: DeviceWeights,
    options: DeviceRunnerOptions,
  ) {
    const { numSlots, backend, maxPrefillSteps = DEVICE_PREFILL_STEPS, kernels = "auto" } = options;
    const { device } = backend;
    const { stages, architecture, cuda } = bundle.manifest;
    this.info = bundle.info;
    this.numSlots = numSlots;
    this.maxPrefillSteps = maxPrefillSteps;
    this.#backend = backend;
    this.#plannedBytes = options.bytes;
    this.#strides = architecture.bytes_per_step;
    this.patchLength = this.#strides[stages.length - 2]!;
    this.initialLogits = weights.read("initial_logits", device);
    this.scoringLogits = weights.read("scoring_logits", device);
    this.#numScoringRows = Math.min(maxPrefillSteps, MAX_SCORING_ROWS);
    const numPlaces = numSlots + 1; // the last one is for rows that only fill a batch
    const maxRows = bucketOf(numSlots);
    this.#contexts = stages.slice(1).map((child, i) => {
      const numRows = numPlaces + (i === stages.length - 2 ? this.#numScoringRows + 1 : 0);
      return allocateTensor(device, cuda!.work_type, [numRows, child.seq_len * child.width]);
    });
    this.#startContexts = stages.slice(1).map((_, i) => weights.tensors[`stage${i}.start_context`]!);
    this.#stages = stages.slice(0, -1).map((_, i) => {
      // A chunk for scoring has one context for each of its steps, and they are of one sequence of the stage.
      const { max_steps: stepLimit, seq_len: seqLen } = stages[i]!;
      const mostSteps = i === 0 ? (stepLimit ?? Number.POSITIVE_INFINITY) : seqLen;
      const scores = i === stages.length - 2;
      return new DeviceStage(bundle, i, backend, {
        numPlaces,
        maxRows,
        maxSteps: maxPrefillSteps,
        maxChunkOutputs: scores ? Math.min(mostSteps, this.#numScoringRows) : 1,
        weights: weights.tensors,
        contexts: this.#contexts[i - 1],
        childContexts: this.#contexts[i]!,
        scratchContext: numPlaces - 1,
        kernels,
      });
    });
    const mostPatches = Math.max(maxRows, bucketOf(this.#numScoringRows));
    this.#local = new DeviceLocalStage(bundle, backend, {
      numPlaces,
      maxRows: mostPatches,
      weights: weights.tensors,
      contexts: this.#contexts.at(-1)!,
      kernels,
    });
    this.#automata = new DeviceAutomata(device);
    this.#slots = new SlotMap(numSlots);
    this.#progress = new SlotProgress(numSlots, this.#strides);
    this.#places = new Int32Array(mostPatches);
    this.#contextRows = new Int32Array(mostPatches);
    this.#scoringBatch = new PatchBatch(this.#numScoringRows, this.patchLength);
    for (let slot = 0; slot < numSlots; slot++) this.reset(slot);
  }

  get deviceStats(): DeviceStats {
    const { device, numCaptures } = this.#backend;
    const { byteLength } = this.weights;
    return {
      name: device.name,
      memory: device.memory(),
      bytes: this.#plannedBytes ?? { weights: byteLength, state: this.numSlots * this.stateBytesPerSlot },
      numGraphs: numCaptures,
      recordingSeconds: this.#recordingSeconds,
      fusedRows: [...this.#stages, this.#local].map(({ kernels }) => kernels.fusedRows),
    };
  }

  /** What runs the stages, in words. */
  get kernels(): string {
    const stages = this.#stages.map(({ kernels }, i) => `stage ${i}: ${kernels.description}`);
    return [`local stage: ${this.#local.kernels.description}`, ...stages].join("; ");
  }

  /** Records the graphs of all batch sizes that can come. */
  record(): void {
    const startedAt = systemClock.now();
    const buckets = bucketsFor(this.numSlots);
    for (const stage of this.#stages) stage.record(buckets);
    this.#local.record(bucketsFor(Math.max(this.numSlots, this.#numScoringRows)));
    this.#recordingSeconds = systemClock.now() - startedAt;
  }

  /**
   * A graph that does not run, or gives no numbers, shows at start: feeds two patches, then so much that every stage has taken part,
   * and another.
   */
  test(): void {
    this.#testPatch();
    this.#testPatch();
    this.reset(0);
    const ids = new Uint16Array(lengthWithAllSteps(this.#strides, this.info.maxLength) + 1);
    for (let fed = 0, taken = -1; taken !== 0; fed += taken) {
      taken = this.prefill(0, ids.subarray(fed), this.maxPrefillSteps);
    }
    this.#testPatch();
    this.reset(0);
  }

  #testPatch(): void {
    const batch = new PatchBatch(1, this.patchLength);
    batch.addForced(0, new Uint16Array(this.patchLength));
    const { logits } = this.runPatches(batch);
    if (logits.subarray(0, this.patchLength * this.info.vocabularySize).every(Number.isFinite)) return;
    const problem = `the self-test of ${this.info.id} on the device failed: the model's logits are not finite`;
    throw new MblmError("bundle_invalid", problem);
  }

  get stateBytesPerSlot(): number {
    const states = this.#stages.reduce((sum, { states: { bytesPerPlace } }) => sum + bytesPerPlace, 0);
    return this.#contexts.reduce((sum, { element, shape }) => sum + tensorBytes(element, shape.slice(1)), states);
  }

  get stepSeconds(): HistogramCounts[] {
    return [...this.#stages.map(({ seconds }) => seconds), this.#localSeconds].map((seconds) => seconds.toCounts());
  }

  reset(slot: number): void {
    this.#progress.reset(slot);
    for (let i = 0; i < this.#contexts.length; i++) this.#setStartContext(i, slot);
  }

  length(slot: number): number {
    return this.#progress.length(slot);
  }

  prefill(slot: number, ids: Uint16Array, maxSteps: number): number {
    const length = this.#progress.length(slot);
    const next = nextPrefill(length, length + ids.length, this.#strides);
    if (!next) return 0;
    this.#crossBorders([slot]);
    const { stage, patches, steps } = firstOf(next, Math.min(maxSteps, this.maxPrefillSteps));
    const taken = patches * this.#strides[stage]!;
    this.#checkStages();
    if (steps > 0) this.#runChunk(stage, slot, ids, steps, [this.#slots.placeOf(slot)]);
    this.#progress.pushAll(slot, ids.subarray(0, taken));
    if (steps === patches) {
      this.#progress.cross(slot);
      this.#startInner(stage, slot);
    }
    return taken;
  }

  #runChunk(index: number, slot: number, ids: Uint16Array, steps: number, contextRows: readonly number[]): void {
    const stage = this.#stages[index]!;
    const size = this.#strides[index]!;
    for (let step = 0; step < steps; step++) {
      for (let k = 0; k < size; k++) stage.setId(step, k, ids[step * size + k]!);
    }
    stage.runChunk(this.#slots.placeOf(slot), this.#progress.stepsMade(slot, index), steps, contextRows);
  }

  score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): number {
    const length = this.#progress.length(slot);
    const limit = Math.min(maxSteps, this.#numScoringRows);
    const next = nextScoring(length, length + ids.length, limit, this.#strides);
    if (!next) return 0;
    this.#crossBorders([slot]);
    const { patches, steps } = next;
    const taken = patches * this.patchLength;
    this.#checkStages();
    this.#scanParent(slot, ids, patches, steps);
    this.#scorePatches(ids, patches, visit);
    this.#progress.pushAll(slot, ids.subarray(0, taken));
    if (steps === patches) {
      this.#progress.cross(slot);
      this.#startInner(this.#stages.length - 1, slot);
    }
    return taken;
  }

  /** Runs the local stage's parent and leaves the context of each patch in its scoring row, the next one's in the slot's. */
  #scanParent(slot: number, ids: Uint16Array, patches: number, steps: number): void {
    const first = this.numSlots + 1;
    const place = this.#slots.placeOf(slot);
    const contexts = this.#contexts.at(-1)!;
    const bytes = tensorBytes(contexts.element, contexts.shape.slice(1));
    const rowAddress = (row: number): bigint => contexts.address + BigInt(row * bytes);
    const { device } = this.#backend;
    device.copy(rowAddress(first), rowAddress(place), bytes);
    if (steps > 0) {
      const rows = Array.from({ length: steps }, (_, step) => first + 1 + step);
      this.#runChunk(this.#stages.length - 1, slot, ids, steps, rows);
    }
    if (steps === patches) device.copy(rowAddress(place), rowAddress(first + steps), bytes);
  }

  #scorePatches(ids: Uint16Array, patches: number, visit: LogitsVisitor): void {
    const batch = this.#scoringBatch;
    batch.clear();
    for (let patch = 0; patch < patches; patch++) {
      const start = patch * this.patchLength;
      batch.addForced(0, ids.subarray(start, start + this.patchLength));
      this.#places[patch] = this.numSlots;
      this.#contextRows[patch] = this.numSlots + 1 + patch;
    }
    const { logits } = this.#local.run(batch, this.#places, this.#contextRows);
    const numIds = patches * this.patchLength;
    for (let index = 0; index < numIds; index++) visit(index, logits, index * this.info.vocabularySize);
  }

  runPatches(batch: PatchBatch): PatchOutput {
    const slots = Array.from({ length: batch.numRows }, (_, row) => batch.slot(row));
    this.#crossBorders(slots);
    for (const [row, slot] of slots.entries()) this.#places[row] = this.#contextRows[row] = this.#slots.placeOf(slot);
    const output = this.#local.run(batch, this.#places, this.#contextRows);
    if (mayHideFailure(batch, output.ids)) this.#checkStages();
    this.#localSeconds.observe(this.#local.runSeconds);
    for (const [row, slot] of slots.entries()) this.#commitPatch(slot, batch.first(row), output.ids, row);
    return output;
  }

  /** Takes note of a patch's bytes: the first, and what followed all but the last. */
  #commitPatch(slot: number, first: number, ids: Int32Array, row: number): void {
    this.#progress.push(slot, first);
    for (let j = 1; j < this.patchLength; j++) {
      this.#progress.push(slot, Math.max(0, ids[row * this.patchLength + j - 1]!));
    }
  }

  rewind(slot: number, length: number): void {
    this.#progress.rewind(slot, length);
  }

  setSamplingTables(slot: number, tables: SamplingTables): void {
    this.#local.setSamplingTables(this.#slots.placeOf(slot), tables);
  }

  holdAutomaton(automaton: ByteAutomaton): bigint {
    return this.#automata.hold(automaton);
  }

  releaseAutomaton(automaton: ByteAutomaton): void {
    this.#automata.release(automaton);
  }

  /** Runs the step that each slot has due, one batch for each stage. */
  #crossBorders(slots: readonly number[]): void {
    const due = slots.map((slot) => this.#progress.dueStage(slot));
    for (let index = 0; index < this.#stages.length; index++) {
      const rows = slots.filter((_, row) => due[row] === index);
      if (rows.length > 0) this.#stepStage(index, rows);
    }
  }

  /** @throws MblmError `engine_failed` when a stage's fused kernel gave up */
  #checkStages(): void {
    for (const stage of this.#stages) stage.check();
  }

  /** One step of a stage over the patch that each of the slots has just completed. */
  #stepStage(index: number, slots: readonly number[]): void {
    const stage = this.#stages[index]!;
    const size = this.#strides[index]!;
    for (const [row, slot] of slots.entries()) {
      const place = this.#slots.placeOf(slot);
      for (let k = 0; k < size; k++) stage.setId(row, k, this.#progress.patchId(slot, index, k));
      stage.setRow(row, place, this.#progress.stepsBefore(slot, index), place);
    }
    stage.runBatch(slots.length);
    for (const slot of slots) {
      this.#progress.cross(slot);
      this.#startInner(index, slot);
    }
  }

  /** Every stage inside `index` starts a new sequence; its states need nothing for that, its children a context. */
  #startInner(index: number, slot: number): void {
    for (let inner = index + 1; inner < this.#stages.length; inner++) this.#setStartContext(inner, slot);
  }

  /** Gives the children of stage `index` the context of its start token. */
  #setStartContext(index: number, slot: number): void {
    const { address, element, shape } = this.#contexts[index]!;
    const bytes = tensorBytes(element, shape.slice(1));
    const row = BigInt(this.#slots.placeOf(slot) * bytes);
    this.#backend.device.copy(address + row, this.#startContexts[index]!.address, bytes);
  }

  /** The place that is left belongs to nobody until it is reset. */
  move(from: number, to: number): void {
    this.swap(from, to);
  }

  swap(a: number, b: number): void {
    this.#slots.swap(a, b);
    this.#progress.swap(a, b);
  }

  /** A device's sequences stand at borders, but for ended ones: their state is that of the border, too. */
  snapshot(slot: number): StateSnapshot {
    return this.borderSnapshot(slot);
  }

  borderSnapshot(slot: number, length = this.#progress.length(slot)): StateSnapshot {
    const progress = this.#progress.snapshot(slot, length - (length % this.patchLength));
    const place = this.#slots.placeOf(slot);
    return {
      ...progress,
      contexts: this.#contexts.map(({ address, element, shape }) => {
        const bytes = tensorBytes(element, shape.slice(1));
        return downloadBytes(this.#backend.device, address + BigInt(place * bytes), bytes);
      }),
      stages: this.#stages.map((stage, i) => stage.states.snapshot(place, this.#progress.stepsHeld(progress, i))),
    };
  }

  fits(snapshot: StateSnapshot): boolean {
    const { contexts, stages } = snapshot;
    return (
      this.#progress.fits(snapshot, this.info.vocabularySize) &&
      contexts.length === this.#contexts.length &&
      contexts.every((values, i) => {
        const { element, shape } = this.#contexts[i]!;
        return values.length === Math.ceil(tensorBytes(element, shape.slice(1)) / 4);
      }) &&
      stages.length === this.#stages.length &&
      stages.every((values, i) => this.#stages[i]!.states.fits(values, this.#progress.stepsHeld(snapshot, i)))
    );
  }

  restore(slot: number, snapshot: StateSnapshot): void {
    const { contexts, stages } = snapshot;
    const place = this.#slots.placeOf(slot);
    this.#progress.restore(slot, snapshot);
    for (const [i, { address, element, shape }] of this.#contexts.entries()) {
      const bytes = tensorBytes(element, shape.slice(1));
      const values = contexts[i]!;
      this.#backend.device.upload(
        address + BigInt(place * bytes),
        new Uint8Array(values.buffer, values.byteOffset, bytes),
      );
    }
    for (const [i, values] of stages.entries()) {
      this.#stages[i]!.states.restore(place, values, this.#progress.stepsHeld(snapshot, i));
    }
  }

  dispose(): void {
    for (const stage of this.#stages) stage.dispose();
    this.#local.dispose();
    this.#automata.dispose();
    for (const { buffer } of this.#contexts) buffer.free();
    this.weights.dispose();
  }
}

/** Whether the contexts of a row may have been no numbers: nothing was chosen by them, or nothing could be. */
function mayHideFailure(batch: PatchBatch, ids: Int32Array): boolean {
  for (let row = 0; row < batch.numRows; row++) {
    if (batch.words[row * ROW_WORDS + ROW.numForced] === batch.patchLength) return true;
  }
  return ids.subarray(0, batch.numRows * batch.patchLength).some((id) => id < 0);
}
