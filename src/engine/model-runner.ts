import type { Bundle } from "../bundle/bundle.js";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import type { Backend } from "../runtime/backend.js";
import { dueStage, nextPrefill, stepsMade } from "../state/patch-cursor.js";
import type { ModelRunner, StateSnapshot } from "./model-runner-interface.js";
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

/** Opens the bundle's sessions and allocates the state of every slot. */
export async function createModelRunner(bundle: Bundle, options: ModelRunnerOptions): Promise<ModelRunner> {
  const { numSlots, backend, numThreads = 1, maxPrefillSteps = DEFAULT_PREFILL_STEPS } = options;
  const { stages, architecture } = bundle.manifest;
  const contexts = stages.map((stage, i) =>
    i > 0 ? new Float32Array(numSlots * stage.seq_len * stage.width) : undefined,
  );
  const logits = new Float32Array(numSlots * architecture.vocab_size);
  const runners = await Promise.all(
    stages.map((stage, i) =>
      StageRunner.open(bundle, stage, backend, numThreads, {
        numSlots,
        maxSteps: maxPrefillSteps,
        parentContext: contexts[i],
        childContext: contexts[i + 1],
        logits: i === stages.length - 1 ? logits : undefined,
      }),
    ),
  );
  const runner = new StagedModelRunner(
    bundle,
    runners,
    contexts.slice(1) as Float32Array[],
    logits,
    numSlots,
    maxPrefillSteps,
  );
  await selfTest(runner);
  return runner;
}

/** Feeds one patch and a byte: every graph runs once before the first request, and a broken runtime shows at start. */
async function selfTest(runner: ModelRunner): Promise<void> {
  for (let fed = 0; fed <= runner.patchLength; fed++) {
    const logits = await runner.step(0, Uint16Array.of(0), Uint8Array.of(1));
    if (!logits.every(Number.isFinite)) {
      throw new MblmError("runtime_unavailable", "the runtime's self-test failed: the model's logits are not finite");
    }
  }
  runner.reset(0);
}

class StagedModelRunner implements ModelRunner {
  readonly info: ModelInfo;
  readonly patchLength: number;
  readonly initialLogits: Float32Array;
  readonly #strides: readonly number[];
  readonly #lengths: Float64Array;
  /** Length at which the slot's latest border was crossed: prefill crosses borders before the next byte is known. */
  readonly #crossedAt: Float64Array;
  /** The last S_0 ids of every slot, at index (byte index mod S_0): what the next step of any stage embeds. */
  readonly #recent: Uint16Array;
  readonly #startContexts: readonly Float32Array[];
  readonly #due: Int32Array;

  constructor(
    bundle: Bundle,
    private readonly stages: readonly StageRunner[],
    /** `contexts[i]` belongs to stage i+1. */
    private readonly contexts: readonly Float32Array[],
    private readonly logits: Float32Array,
    readonly numSlots: number,
    private readonly maxPrefillSteps: number,
  ) {
    this.info = bundle.info;
    this.initialLogits = bundle.constant(bundle.manifest.initial_logits.tensor);
    this.#strides = bundle.manifest.architecture.bytes_per_step;
    this.patchLength = stages.length > 1 ? this.#strides[stages.length - 2]! : 1;
    this.#lengths = new Float64Array(numSlots);
    this.#crossedAt = new Float64Array(numSlots);
    this.#recent = new Uint16Array(numSlots * this.#strides[0]!);
    this.#startContexts = bundle.manifest.stages.flatMap((s) =>
      s.start_context ? [bundle.constant(s.start_context.tensor)] : [],
    );
    this.#due = new Int32Array(numSlots);
    for (let slot = 0; slot < numSlots; slot++) this.reset(slot);
  }

  get stateBytesPerSlot(): number {
    const stages = this.stages.reduce((sum, stage) => sum + stage.state.bytesPerSlot, 0);
    return this.contexts.reduce((sum, context) => sum + context.byteLength / this.numSlots, stages);
  }

  reset(slot: number): void {
    this.#lengths[slot] = this.#crossedAt[slot] = 0;
    for (const stage of this.stages) stage.state.initialize(slot);
    for (let i = 0; i < this.contexts.length; i++) this.#setStartContext(i, slot);
  }

  length(slot: number): number {
    return this.#lengths[slot]!;
  }

  async prefill(slot: number, ids: Uint16Array, maxSteps: number): Promise<number> {
    const length = this.#lengths[slot]!;
    const next = nextPrefill(length, ids.length, this.#strides);
    if (!next) return 0;
    await this.#crossBorders(slot, 1);
    const steps = Math.min(next.steps, maxSteps, this.maxPrefillSteps);
    const stage = this.stages[next.stage]!;
    const taken = steps * this.#strides[next.stage]!;
    for (let k = 0; k < taken; k++) stage.setId(0, k, taken, ids[length + k]!);
    stage.setPosition(0, slot, stepsMade(length, next.stage, this.#strides), steps);
    await stage.run(slot, 1, steps, "prefill");
    this.#remember(slot, length, ids.subarray(length, length + taken));
    this.#lengths[slot] = this.#crossedAt[slot] = length + taken;
    this.#startInner(next.stage, slot);
    return taken;
  }

  async step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Promise<Float32Array> {
    const rows = ids.length;
    await this.#crossBorders(firstSlot, rows, active);
    const local = this.stages[this.stages.length - 1]!;
    const index = this.stages.length - 1;
    const rowsPerRun = local.manifest.max_rows ?? rows;
    for (let first = 0; first < rows; first += rowsPerRun) {
      const count = Math.min(rowsPerRun, rows - first);
      for (let row = 0; row < count; row++) {
        const slot = firstSlot + first + row;
        local.setId(row, 0, 1, ids[first + row]!);
        local.setPosition(row, slot, stepsMade(this.#lengths[slot]!, index, this.#strides), 1);
      }
      await local.run(firstSlot + first, count, 1);
    }
    const stride = this.#strides[0]!;
    for (let row = 0; row < rows; row++) {
      if (!active[row]) continue;
      const slot = firstSlot + row;
      this.#recent[slot * stride + (this.#lengths[slot]! % stride)] = ids[row]!;
      this.#lengths[slot]! += 1;
    }
    const vocabulary = this.info.vocabularySize;
    return this.logits.subarray(firstSlot * vocabulary, (firstSlot + rows) * vocabulary);
  }

  /** Runs the step that each row has due; neighbouring rows due at the same stage share a call. */
  async #crossBorders(firstSlot: number, rows: number, active?: Uint8Array): Promise<void> {
    if (this.stages.length === 1) return;
    const due = this.#due;
    for (let row = 0; row < rows; row++) {
      const slot = firstSlot + row;
      const length = this.#lengths[slot]!;
      const skip = (active && !active[row]) || this.#crossedAt[slot] === length;
      due[row] = skip ? -1 : dueStage(length, this.#strides);
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
    const stride = this.#strides[0]!;
    const rowsPerRun = stage.manifest.max_rows ?? rows;
    for (let first = firstSlot; first < firstSlot + rows; first += rowsPerRun) {
      const count = Math.min(rowsPerRun, firstSlot + rows - first);
      for (let row = 0; row < count; row++) {
        const slot = first + row;
        const start = this.#lengths[slot]! - size;
        const offset = slot * stride + (start % stride);
        for (let k = 0; k < size; k++) stage.setId(row, k, size, this.#recent[offset + k]!);
        stage.setPosition(row, slot, stepsMade(start, index, this.#strides), 1);
      }
      await stage.run(first, count, 1, "prefill");
    }
    for (let slot = firstSlot; slot < firstSlot + rows; slot++) {
      this.#crossedAt[slot] = this.#lengths[slot]!;
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
    const start = this.#startContexts[index]!;
    this.contexts[index]!.set(start, slot * start.length);
  }

  #remember(slot: number, length: number, ids: Uint16Array): void {
    const stride = this.#strides[0]!;
    const first = Math.max(0, ids.length - stride);
    for (let k = first; k < ids.length; k++) this.#recent[slot * stride + ((length + k) % stride)] = ids[k]!;
  }

  move(from: number, to: number): void {
    for (const stage of this.stages) stage.state.move(from, to);
    for (const memory of [...this.contexts, this.#recent, this.#lengths, this.#crossedAt]) {
      const size = memory.length / this.numSlots;
      memory.copyWithin(to * size, from * size, (from + 1) * size);
    }
  }

  snapshot(slot: number): StateSnapshot {
    const stride = this.#strides[0]!;
    return {
      length: this.#lengths[slot]!,
      crossedAt: this.#crossedAt[slot]!,
      recent: this.#recent.slice(slot * stride, (slot + 1) * stride),
      contexts: this.contexts.map((c) =>
        c.slice((slot * c.length) / this.numSlots, ((slot + 1) * c.length) / this.numSlots),
      ),
      stages: this.stages.map((stage) => stage.state.snapshot(slot)),
    };
  }

  restore(slot: number, snapshot: StateSnapshot): void {
    this.#lengths[slot] = snapshot.length;
    this.#crossedAt[slot] = snapshot.crossedAt;
    this.#recent.set(snapshot.recent, slot * this.#strides[0]!);
    for (const [i, context] of this.contexts.entries())
      context.set(snapshot.contexts[i]!, (slot * context.length) / this.numSlots);
    for (const [i, stage] of this.stages.entries()) stage.state.restore(slot, snapshot.stages[i]!);
  }

  dispose(): void {
    for (const stage of this.stages) stage.dispose();
  }
}
