import type { Bundle } from "../bundle/bundle.js";
import type { StageManifest } from "../bundle/manifest.js";
import type { Backend, Binding, Session, Tensor } from "../runtime/backend.js";
import { StageState } from "../state/stage-state.js";

/** Bindings kept per stage; prefill remainders of odd lengths are what would grow without a bound. */
const MAX_BINDINGS = 256;

export interface StageMemory {
  readonly numSlots: number;
  /** Longest T of a run. */
  readonly maxSteps: number;
  /** Context vectors from the parent, `[numSlots · P_i, D_i]`; absent for stage 0. */
  readonly parentContext: Float32Array | undefined;
  /** Context vectors for the children, `[numSlots, P_{i+1} · D_{i+1}]`; absent for the local stage. */
  readonly childContext: Float32Array | undefined;
  /** `[numSlots, V]`, local stage only. */
  readonly logits: Float32Array | undefined;
}

/** One stage: its session, state and bound input memory. Runs contiguous ranges of slots. */
export class StageRunner {
  readonly state: StageState;
  readonly #inputs: { bytes: BigInt64Array; position: Int32Array; index: BigInt64Array; outputIndex: BigInt64Array };
  /** Low words of the int64 inputs: ids and indices are small, and writing BigInts would allocate. */
  readonly #bytesLow: Int32Array;
  readonly #indexLow: Int32Array;
  readonly #outputIndexLow: Int32Array;
  readonly #bindings = new Map<string, Binding>();

  private constructor(
    readonly manifest: StageManifest,
    bundle: Bundle,
    private readonly session: Session,
    private readonly prefillSession: Session | undefined,
    private readonly memory: StageMemory,
  ) {
    this.state = new StageState(bundle, manifest, memory.numSlots);
    const rows = memory.numSlots;
    const steps = rows * memory.maxSteps;
    this.#inputs = {
      bytes: new BigInt64Array(steps * manifest.bytes_per_step),
      position: new Int32Array(rows),
      index: new BigInt64Array(steps),
      outputIndex: new BigInt64Array(1),
    };
    this.#bytesLow = new Int32Array(this.#inputs.bytes.buffer);
    this.#indexLow = new Int32Array(this.#inputs.index.buffer);
    this.#outputIndexLow = new Int32Array(this.#inputs.outputIndex.buffer);
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
    this.#outputIndexLow[0] = steps - 1;
    const pending = this.#binding(firstSlot, rows, steps, form).run();
    if (pending) await pending;
    this.state.commit(firstSlot, rows);
  }

  #binding(firstSlot: number, rows: number, steps: number, form: "step" | "prefill"): Binding {
    const key = `${form} ${firstSlot} ${rows} ${steps}`;
    let binding = this.#bindings.get(key);
    if (!binding) {
      if (this.#bindings.size >= MAX_BINDINGS) this.#evictOldest();
      const ports = this.#ports(firstSlot, rows, steps, form);
      const session = form === "prefill" ? (this.prefillSession ?? this.session) : this.session;
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

  #ports(firstSlot: number, rows: number, steps: number, form: "step" | "prefill") {
    const { bytes_per_step, width, role } = this.manifest;
    const { parentContext, childContext, logits, numSlots } = this.memory;
    const state = this.state.ports(firstSlot, rows);
    const isByteStep = role === "local" && form === "step";
    const numIds = rows * steps * bytes_per_step;
    const inputs: Record<string, Tensor> = {
      ...state.inputs,
      bytes: { data: this.#inputs.bytes.subarray(0, numIds), shape: isByteStep ? [rows] : [rows, numIds / rows] },
      position: { data: this.#inputs.position.subarray(0, rows), shape: [rows] },
      parent_index: { data: this.#inputs.index.subarray(0, rows * steps), shape: isByteStep ? [rows] : [rows, steps] },
      output_index: { data: this.#inputs.outputIndex, shape: [1] },
    };
    const outputs: Record<string, Tensor> = { ...state.outputs };
    if (parentContext) inputs.parent_context = { data: parentContext, shape: [parentContext.length / width, width] };
    const slice = (memory: Float32Array): Float32Array => {
      const size = memory.length / numSlots;
      return memory.subarray(firstSlot * size, (firstSlot + rows) * size);
    };
    if (childContext) outputs.context = { data: slice(childContext), shape: [rows, 1, childContext.length / numSlots] };
    if (logits) outputs.logits = { data: slice(logits), shape: [rows, logits.length / numSlots] };
    return { inputs, outputs };
  }

  dispose(): void {
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#bindings.clear();
    this.session.dispose();
    this.prefillSession?.dispose();
  }
}
