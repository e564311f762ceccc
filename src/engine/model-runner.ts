import type { Bundle } from "../bundle/bundle.js";
import type { StageManifest } from "../bundle/manifest.js";
import type { HistogramCounts } from "../core/histogram.js";
import type { ModelInfo } from "../core/model-info.js";
import type { StateSnapshot } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import { type Backend, numElements } from "../runtime/backend.js";
import { firstOf, lengthWithAllSteps, nextPrefill, nextScoring } from "../state/patch-cursor.js";
import { SlotProgress } from "../state/slot-progress.js";
import type { LogitsVisitor, ModelRunner } from "./model-runner-interface.js";
import { StageRunner } from "./stage-runner.js";

export interface ModelRunnerOptions {
  readonly numSlots: number;
  readonly backend: Backend;
  /** Threads inside a graph run. */
  readonly numThreads?: number;
  /** Most steps that one prefill call may take. */
  readonly maxPrefillSteps?: number;
}

export const DEFAULT_PREFILL_STEPS = 64;
/** Memory for the local states of patches that are scored side by side. */
const MAX_SCORING_BYTES = 128 * 2 ** 20;

/**
 * Opens the bundle's sessions and allocates the state of every slot. What is open when it fails is the backend's to release.
 *
 * @throws MblmError `bundle_invalid` when a graph does not fit the manifest, or the model gives no numbers; `engine_failed`
 */
export async function createModelRunner(bundle: Bundle, options: ModelRunnerOptions): Promise<ModelRunner> {
  const { numSlots, backend, numThreads = 1, maxPrefillSteps = DEFAULT_PREFILL_STEPS } = options;
  const { stages, architecture } = bundle.manifest;
  const numScoringRows = stages.length > 1 ? scoringRows(stages.at(-1)!, maxPrefillSteps) : 0;
  const numRows = stages.map((_, i) => numSlots + (i === stages.length - 1 ? numScoringRows : 0));
  const contexts = stages.map((stage, i) => {
    // One row more than the local stage has: a scan of n patches also gives the context of the patch behind them.
    const rows = numRows[i]! + (i === stages.length - 1 ? 1 : 0);
    return i > 0 ? new Float32Array(rows * stage.seq_len * stage.width) : undefined;
  });
  const logits = new Float32Array(numRows.at(-1)! * architecture.vocab_size);
  const runners: StageRunner[] = [];
  // One after the other: when one fails, none is still being opened.
  for (const [i, stage] of stages.entries()) {
    const memory = {
      numRows: numRows[i]!,
      maxSteps: maxPrefillSteps,
      parentContext: contexts[i],
      childContext: contexts[i + 1],
      childContextSize: i + 1 < stages.length ? stages[i + 1]!.seq_len * stages[i + 1]!.width : 0,
      logits: i === stages.length - 1 ? logits : undefined,
    };
    runners.push(await StageRunner.open(bundle, stage, backend, numThreads, memory));
  }
  const runner = new StagedModelRunner(
    bundle,
    runners,
    contexts.slice(1) as Float32Array[],
    logits,
    numSlots,
    numScoringRows,
    maxPrefillSteps,
  );
  await selfTest(runner, architecture.bytes_per_step);
  return runner;
}

/** Local patches to score side by side: as many as a prefill call has steps, unless their states would be too large. */
function scoringRows(local: StageManifest, maxPrefillSteps: number): number {
  const stateBytes = local.states.reduce((sum, { shape }) => sum + 4 * numElements(shape), 0);
  return Math.max(1, Math.min(maxPrefillSteps, Math.floor(MAX_SCORING_BYTES / Math.max(1, stateBytes))));
}

/**
 * Every graph runs before the first request, and a model that gives no numbers shows at start: a patch and a byte, then so much that
 * every stage has taken part.
 */
async function selfTest(runner: ModelRunner, strides: readonly number[]): Promise<void> {
  const { info, maxPrefillSteps, patchLength } = runner;
  const step = async (): Promise<void> => {
    const logits = await runner.step(0, Uint16Array.of(0), Uint8Array.of(1));
    if (logits.every(Number.isFinite)) return;
    throw new MblmError("bundle_invalid", `the self-test of ${info.id} failed: the model's logits are not finite`);
  };
  for (let fed = 0; fed <= patchLength; fed++) await step();
  runner.reset(0);
  const ids = new Uint16Array(lengthWithAllSteps(strides, info.maxLength) + 1);
  for (let fed = 0, taken = -1; taken !== 0; fed += taken) {
    taken = await runner.prefill(0, ids.subarray(fed), maxPrefillSteps);
  }
  await step();
  runner.reset(0);
}

class StagedModelRunner implements ModelRunner {
  readonly info: ModelInfo;
  readonly patchLength: number;
  readonly initialLogits: Float32Array;
  readonly scoringLogits: Float32Array;
  readonly #strides: readonly number[];
  readonly #progress: SlotProgress;
  readonly #startContexts: readonly Float32Array[];
  /** Values per row of each of `contexts`. */
  readonly #contextSizes: readonly number[];
  readonly #due: Int32Array;

  constructor(
    bundle: Bundle,
    private readonly stages: readonly StageRunner[],
    /** `contexts[i]` belongs to stage i+1. */
    private readonly contexts: readonly Float32Array[],
    private readonly logits: Float32Array,
    readonly numSlots: number,
    /** Rows of the local stage behind the slots, for patches that are scored side by side. */
    private readonly numScoringRows: number,
    readonly maxPrefillSteps: number,
  ) {
    this.info = bundle.info;
    this.initialLogits = bundle.constant(bundle.manifest.initial_logits.tensor);
    this.scoringLogits = bundle.constant(bundle.manifest.scoring_logits.tensor);
    this.#strides = bundle.manifest.architecture.bytes_per_step;
    this.patchLength = stages.length > 1 ? this.#strides[stages.length - 2]! : 1;
    this.#progress = new SlotProgress(numSlots, this.#strides);
    this.#startContexts = bundle.manifest.stages.flatMap((s) =>
      s.start_context ? [bundle.constant(s.start_context.tensor)] : [],
    );
    this.#contextSizes = bundle.manifest.stages.slice(1).map((stage) => stage.seq_len * stage.width);
    this.#due = new Int32Array(numSlots);
    for (let row = 0; row < numScoringRows; row++) this.#local.state.initialize(numSlots + row);
    for (let slot = 0; slot < numSlots; slot++) this.reset(slot);
  }

  get stateBytesPerSlot(): number {
    const stages = this.stages.reduce((sum, stage) => sum + stage.state.bytesPerSlot, 0);
    return this.#contextSizes.reduce((sum, size) => sum + 4 * size, stages);
  }

  get stepSeconds(): HistogramCounts[] {
    return this.stages.map(({ seconds }) => seconds.toCounts());
  }

  get #local(): StageRunner {
    return this.stages[this.stages.length - 1]!;
  }

  reset(slot: number): void {
    this.#progress.reset(slot);
    for (const stage of this.stages) stage.state.initialize(slot);
    for (let i = 0; i < this.contexts.length; i++) this.#setStartContext(i, slot);
  }

  length(slot: number): number {
    return this.#progress.length(slot);
  }

  async prefill(slot: number, ids: Uint16Array, maxSteps: number): Promise<number> {
    const length = this.#progress.length(slot);
    const next = nextPrefill(length, length + ids.length, this.#strides);
    if (!next) return 0;
    await this.#crossBorders(slot, 1);
    const { stage: index, patches, steps } = firstOf(next, Math.min(maxSteps, this.maxPrefillSteps));
    const stride = this.#strides[index]!;
    const taken = patches * stride;
    if (steps > 0) {
      const stage = this.stages[index]!;
      const numIds = steps * stride;
      for (let k = 0; k < numIds; k++) stage.setId(0, k, numIds, ids[k]!);
      stage.setPosition(0, slot, this.#progress.stepsMade(slot, index), steps);
      await stage.run(slot, 1, steps, "prefill");
    }
    this.#progress.pushAll(slot, ids.subarray(0, taken));
    if (steps === patches) {
      this.#progress.cross(slot);
      this.#startInner(index, slot);
    }
    return taken;
  }

  async score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): Promise<number> {
    const length = this.#progress.length(slot);
    const limit = Math.min(maxSteps, this.maxPrefillSteps, this.numScoringRows);
    const next = nextScoring(length, length + ids.length, limit, this.#strides);
    if (!next) return 0;
    await this.#crossBorders(slot, 1);
    const { patches, steps } = next;
    const taken = patches * this.patchLength;
    await this.#scanParent(slot, ids, patches, steps);
    await this.#scorePatches(ids, patches, visit);
    this.#progress.pushAll(slot, ids.subarray(0, taken));
    if (steps === patches) {
      this.#progress.cross(slot);
      this.#startInner(this.stages.length - 2, slot);
    }
    return taken;
  }

  /** Runs the local stage's parent and leaves the context of each patch in its scoring row, the next one's in the slot. */
  async #scanParent(slot: number, ids: Uint16Array, patches: number, steps: number): Promise<void> {
    const index = this.stages.length - 2;
    const parent = this.stages[index]!;
    const contexts = this.contexts[index]!;
    const size = this.#contextSizes[index]!;
    const firstRow = this.numSlots;
    contexts.copyWithin(firstRow * size, slot * size, (slot + 1) * size);
    if (steps > 0) {
      const numIds = steps * this.patchLength;
      for (let k = 0; k < numIds; k++) parent.setId(0, k, numIds, ids[k]!);
      parent.setPosition(0, slot, this.#progress.stepsMade(slot, index), steps);
      await parent.scan(slot, steps, firstRow + 1);
    }
    if (steps === patches) contexts.copyWithin(slot * size, (firstRow + steps) * size, (firstRow + steps + 1) * size);
  }

  /** Feeds each scoring row its patch. */
  async #scorePatches(ids: Uint16Array, patches: number, visit: LogitsVisitor): Promise<void> {
    const local = this.#local;
    const rowsPerRun = local.manifest.max_rows ?? patches;
    for (let row = 0; row < patches; row++) local.state.restart(this.numSlots + row);
    for (let position = 0; position < this.patchLength; position++) {
      for (let first = 0; first < patches; first += rowsPerRun) {
        const count = Math.min(rowsPerRun, patches - first);
        for (let row = 0; row < count; row++) {
          local.setId(row, 0, 1, ids[(first + row) * this.patchLength + position]!);
          local.setPosition(row, this.numSlots + first + row, position, 1);
        }
        await local.run(this.numSlots + first, count, 1);
      }
      for (let row = 0; row < patches; row++) {
        visit(row * this.patchLength + position, this.logits, (this.numSlots + row) * this.info.vocabularySize);
      }
    }
  }

  async step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Promise<Float32Array> {
    const rows = ids.length;
    await this.#crossBorders(firstSlot, rows, active);
    const local = this.#local;
    const index = this.stages.length - 1;
    const rowsPerRun = local.manifest.max_rows ?? rows;
    for (let first = 0; first < rows; first += rowsPerRun) {
      const count = Math.min(rowsPerRun, rows - first);
      for (let row = 0; row < count; row++) {
        const slot = firstSlot + first + row;
        local.setId(row, 0, 1, ids[first + row]!);
        local.setPosition(row, slot, this.#progress.stepsMade(slot, index), 1);
      }
      await local.run(firstSlot + first, count, 1);
    }
    for (let row = 0; row < rows; row++) if (active[row]) this.#progress.push(firstSlot + row, ids[row]!);
    const vocabulary = this.info.vocabularySize;
    return this.logits.subarray(firstSlot * vocabulary, (firstSlot + rows) * vocabulary);
  }

  /** Runs the step that each row has due; neighbouring rows due at the same stage share a call. */
  async #crossBorders(firstSlot: number, rows: number, active?: Uint8Array): Promise<void> {
    if (this.stages.length === 1) return;
    const due = this.#due;
    for (let row = 0; row < rows; row++) {
      due[row] = active && !active[row] ? -1 : this.#progress.dueStage(firstSlot + row);
    }
    for (let row = 0; row < rows; ) {
      const stage = due[row]!;
      let end = row + 1;
      while (end < rows && due[end] === stage) end++;
      if (stage >= 0) await this.#stepStage(stage, firstSlot + row, end - row);
      row = end;
    }
  }

  /** One step of a non-local stage over the patch that each of the rows has just completed. */
  async #stepStage(index: number, firstSlot: number, rows: number): Promise<void> {
    const stage = this.stages[index]!;
    const size = this.#strides[index]!;
    const rowsPerRun = stage.manifest.max_rows ?? rows;
    for (let first = firstSlot; first < firstSlot + rows; first += rowsPerRun) {
      const count = Math.min(rowsPerRun, firstSlot + rows - first);
      for (let row = 0; row < count; row++) {
        const slot = first + row;
        for (let k = 0; k < size; k++) stage.setId(row, k, size, this.#progress.patchId(slot, index, k));
        stage.setPosition(row, slot, this.#progress.stepsBefore(slot, index), 1);
      }
      await stage.run(first, count, 1, "prefill");
    }
    for (let slot = firstSlot; slot < firstSlot + rows; slot++) {
      this.#progress.cross(slot);
      this.#startInner(index, slot);
    }
  }

  /** Every stage inside `index` starts a new sequence. */
  #startInner(index: number, slot: number): void {
    for (let inner = index + 1; inner < this.stages.length; inner++) {
      this.stages[inner]!.state.restart(slot);
      if (inner < this.stages.length - 1) this.#setStartContext(inner, slot);
    }
  }

  /** Gives the children of stage `index` the context of its start token. */
  #setStartContext(index: number, slot: number): void {
    this.contexts[index]!.set(this.#startContexts[index]!, slot * this.#contextSizes[index]!);
  }

  move(from: number, to: number): void {
    for (const stage of this.stages) stage.state.move(from, to);
    for (const [i, context] of this.contexts.entries()) {
      const size = this.#contextSizes[i]!;
      context.copyWithin(to * size, from * size, (from + 1) * size);
    }
    this.#progress.move(from, to);
  }

  swap(a: number, b: number): void {
    const displaced = this.snapshot(b);
    this.move(a, b);
    this.restore(a, displaced);
  }

  snapshot(slot: number): StateSnapshot {
    return this.#snapshot(slot, this.#progress.length(slot), this.stages.length);
  }

  borderSnapshot(slot: number, length = this.#progress.length(slot)): StateSnapshot {
    // Since the last border that was crossed, only the local stage has moved on; the latest ids are overwritten as the
    // patch is fed again.
    return this.#snapshot(slot, length - (length % this.patchLength), Math.max(1, this.stages.length - 1));
  }

  #snapshot(slot: number, length: number, numStages: number): StateSnapshot {
    const progress = this.#progress.snapshot(slot, length);
    return {
      ...progress,
      contexts: this.contexts.map((context, i) => {
        const size = this.#contextSizes[i]!;
        return context.slice(slot * size, (slot + 1) * size);
      }),
      stages: this.stages
        .slice(0, numStages)
        .map((stage, i) => stage.state.snapshot(slot, 1 + this.#progress.stepsHeld(progress, i))),
    };
  }

  fits(snapshot: StateSnapshot): boolean {
    const { contexts, stages } = snapshot;
    return (
      this.#progress.fits(snapshot, this.info.vocabularySize) &&
      contexts.length === this.contexts.length &&
      contexts.every((context, i) => context.length === this.#contextSizes[i]!) &&
      stages.length === Math.max(1, this.stages.length - 1) &&
      stages.every((tensors, i) => this.stages[i]!.state.fits(tensors, 1 + this.#progress.stepsHeld(snapshot, i)))
    );
  }

  restore(slot: number, snapshot: StateSnapshot): void {
    this.#progress.restore(slot, snapshot);
    for (const [i, context] of this.contexts.entries())
      context.set(snapshot.contexts[i]!, slot * this.#contextSizes[i]!);
    for (const [i, tensors] of snapshot.stages.entries()) this.stages[i]!.state.restore(slot, tensors);
  }

  dispose(): void {
    for (const stage of this.stages) stage.dispose();
  }
}
