import type { Bundle } from "../bundle/bundle.js";
import type { StageManifest } from "../bundle/manifest.js";
import { systemClock } from "../core/clock.js";
import { Histogram } from "../core/histogram.js";
import type { Backend, Binding, Session, Tensor } from "../runtime/backend.js";
import { StageState } from "../state/stage-state.js";

/** In seconds: from a step of a small stage to a prefill call of a large one. */
export const STEP_BOUNDS = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1];
/** Bindings kept per stage; prefill remainders of odd lengths are what would grow without a bound. */
const MAX_BINDINGS = 256;

export interface StageMemory {
  /** Rows with a state: the slots and, for the local stage, scratch rows behind them. */
  readonly numRows: number;
  /** Longest T of a run. */
  readonly maxSteps: number;
  /** Context vectors from the parent, `[≥ numRows · P_i, D_i]`; absent for stage 0. */
  readonly parentContext: Float32Array | undefined;
  /** Context vectors for the children, `[rows of the child, P_{i+1} · D_{i+1}]`; absent for the local stage. */
  readonly childContext: Float32Array | undefined;
  /** Values per row of `childContext`. */
  readonly childContextSize: number;
  /** `[numRows, V]`, local stage only. */
  readonly logits: Float32Array | undefined;
}

/** What a run's graph takes and gives. `scan`: as `prefill`, with the context of every step instead of the last. */
type Form = "step" | "prefill" | "scan";

/** One stage: its session, state and bound input memory. Runs contiguous ranges of slots. */
export class StageRunner {
  readonly state: StageState;
  readonly #inputs: {
    bytes: BigInt64Array;
    position: Int32Array;
    index: BigInt64Array;
    /** The index of a run's last step. */
    lastStep: BigInt64Array;
    /** 0, 1, 2, …: the indices of all steps. */
    everyStep: BigInt64Array;
  };
  /** Low words of the int64 inputs: ids and indices are small, and writing BigInts would allocate. */
  readonly #bytesLow: Int32Array;
  readonly #indexLow: Int32Array;
  readonly #lastStepLow: Int32Array;
  readonly #bindings = new Map<string, Binding>();
  /** Seconds of a run. */
  readonly seconds = new Histogram(STEP_BOUNDS);

  private constructor(
    readonly manifest: StageManifest,
    bundle: Bundle,
    private readonly session: Session,
    private readonly prefillSession: Session | undefined,
    private readonly memory: StageMemory,
  ) {
    this.state = new StageState(bundle, manifest, memory.numRows);
    const rows = memory.numRows;
    const steps = rows * memory.maxSteps;
    this.#inputs = {
      bytes: new BigInt64Array(steps * manifest.bytes_per_step),
      position: new Int32Array(rows),
      index: new BigInt64Array(steps),
      lastStep: new BigInt64Array(1),
      everyStep: BigInt64Array.from({ length: memory.maxSteps }, (_, step) => BigInt(step)),
    };
    this.#bytesLow = new Int32Array(this.#inputs.bytes.buffer);
    this.#indexLow = new Int32Array(this.#inputs.index.buffer);
    this.#lastStepLow = new Int32Array(this.#inputs.lastStep.buffer);
  }

  static async open(
    bundle: Bundle,
    manifest: StageManifest,
    backend: Backend,
    numThreads: number,
    memory: StageMemory,
  ): Promise<StageRunner> {
    const session = await backend.openSession(bundle.path(manifest.graph), numThreads);
    const prefill = manifest.prefill_graph
      ? await backend.openSession(bundle.path(manifest.prefill_graph), numThreads)
      : undefined;
    return new StageRunner(manifest, bundle, session, prefill, memory);
  }

  /** Writes id number `k` of row `row` (relative to the run's first) of a run of `idsPerRow` ids a row. */
  setId(row: number, k: number, idsPerRow: number, id: number): void {
    this.#bytesLow[2 * (row * idsPerRow + k)] = id;
  }

  /** Writes the index of the run's first step in the row's stage sequence. */
  setPosition(row: number, slot: number, position: number, steps: number): void {
    this.#inputs.position[row] = position;
    const base = slot * this.manifest.seq_len + position;
    for (let t = 0; t < steps; t++) this.#indexLow[2 * (row * steps + t)] = base + t;
  }

  /** Runs `steps` steps of the rows whose inputs were written, and commits their state. */
  async run(firstSlot: number, rows: number, steps: number, form: "step" | "prefill" = "step"): Promise<void> {
    this.#lastStepLow[0] = steps - 1;
    await this.#timed(this.#binding(firstSlot, rows, steps, form, firstSlot));
    this.state.commit(firstSlot, rows);
  }

  /** Runs `steps` steps of one slot and writes the context of step t to row `firstContextRow + t` of the children's. */
  async scan(slot: number, steps: number, firstContextRow: number): Promise<void> {
    await this.#timed(this.#binding(slot, 1, steps, "scan", firstContextRow));
    this.state.commit(slot, 1);
  }

  #timed(binding: Binding): Promise<void> | undefined {
    const startedAt = systemClock.now();
    const pending = binding.run();
    if (pending) return pending.then(() => this.seconds.observe(systemClock.now() - startedAt));
    this.seconds.observe(systemClock.now() - startedAt);
    return undefined;
  }

  #binding(firstSlot: number, rows: number, steps: number, form: Form, contextRow: number): Binding {
    const key = `${form} ${firstSlot} ${rows} ${steps}`;
    let binding = this.#bindings.get(key);
    if (!binding) {
      if (this.#bindings.size >= MAX_BINDINGS) this.#evictOldest();
      const ports = this.#ports(firstSlot, rows, steps, form, contextRow);
      const session = form === "step" ? this.session : (this.prefillSession ?? this.session);
      binding = session.bind(ports.inputs, ports.outputs);
      this.#bindings.set(key, binding);
    }
    return binding;
  }

  #evictOldest(): void {
    const [key, binding] = this.#bindings.entries().next().value!;
    binding.dispose();
    this.#bindings.delete(key);
  }

  #ports(firstSlot: number, rows: number, steps: number, form: Form, contextRow: number) {
    const { bytes_per_step, width, role } = this.manifest;
    const { parentContext, childContext, childContextSize, logits, numRows } = this.memory;
    const state = this.state.ports(firstSlot, rows);
    const isByteStep = role === "local" && form === "step";
    const numIds = rows * steps * bytes_per_step;
    const inputs: Record<string, Tensor> = {
      ...state.inputs,
      bytes: { data: this.#inputs.bytes.subarray(0, numIds), shape: isByteStep ? [rows] : [rows, numIds / rows] },
      position: { data: this.#inputs.position.subarray(0, rows), shape: [rows] },
      parent_index: { data: this.#inputs.index.subarray(0, rows * steps), shape: isByteStep ? [rows] : [rows, steps] },
      output_index:
        form === "scan"
          ? { data: this.#inputs.everyStep.subarray(0, steps), shape: [steps] }
          : { data: this.#inputs.lastStep, shape: [1] },
    };
    const outputs: Record<string, Tensor> = { ...state.outputs };
    if (parentContext) inputs.parent_context = { data: parentContext, shape: [parentContext.length / width, width] };
    if (childContext) {
      const numContexts = form === "scan" ? steps : rows;
      const first = contextRow * childContextSize;
      outputs.context = {
        data: childContext.subarray(first, first + numContexts * childContextSize),
        shape: form === "scan" ? [1, steps, childContextSize] : [rows, 1, childContextSize],
      };
    }
    if (logits) {
      const size = logits.length / numRows;
      outputs.logits = {
        data: logits.subarray(firstSlot * size, (firstSlot + rows) * size),
        shape: [rows, size],
      };
    }
    return { inputs, outputs };
  }

  dispose(): void {
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#bindings.clear();
    this.session.dispose();
    this.prefillSession?.dispose();
  }
}
