import type { Bundle } from "../../bundle/bundle.js";
import type { FusedManifest } from "../../bundle/cuda-manifest.js";
import type { Kernels } from "../../core/kernels.js";
import { MblmError } from "../../errors.js";
import type { DeviceBackend, DeviceBinding, DeviceTensor } from "../../runtime/device.js";
import { MAX_SMALL_ROWS } from "./buckets.js";
import { FusedKernel } from "./fused-kernel.js";

/** Of runs that are compared, on the device's clock. */
const MARK = { start: 5, end: 6 } as const;
/** Runs of a binding before it is timed: the first ones record it. */
const WARM_UP_RUNS = 4;
const TIMED_RUNS = 5;

/** The two ways of running a batch of a stage. */
export interface StageWays {
  /** Of the graph with the fused kernel; undefined where the bundle has none. */
  readonly fused: FusedManifest | undefined;
  /** Whether `--kernels fused` is refused where there is no such graph. */
  readonly mustHaveFused: boolean;
  /** Tensors of the graphs for so many rows, but for the fused kernel's own memory. */
  readonly ports: (rows: number) => Record<string, DeviceTensor>;
  /** One kernel for each operator. */
  readonly operators: (rows: number) => DeviceBinding;
  /** Sends a batch that nobody reads. */
  readonly sendTrial: (rows: number) => void;
}

/** Which kernels run a stage, batch size by batch size. */
export class StageKernels {
  #fused: FusedKernel | undefined;
  /** Batches up to this size are run by the fused kernel. */
  #fusedRows = 0;
  #description = "one kernel for each operator";

  constructor(
    private readonly bundle: Bundle,
    private readonly backend: DeviceBackend,
    private readonly ways: StageWays,
  ) {}

  /** What runs the stage, and why, in words. */
  get description(): string {
    return this.#description;
  }

  /** Batches of up to so many rows are run by the fused kernel. */
  get fusedRows(): number {
    return this.#fusedRows;
  }

  isFused(rows: number): boolean {
    return rows <= this.#fusedRows;
  }

  binding(rows: number): DeviceBinding {
    return this.isFused(rows) ? this.#fused!.binding(rows) : this.ways.operators(rows);
  }

  /**
   * @param buckets batch sizes that can come, ascending
   * @throws MblmError `runtime_unavailable` when the fused kernel is asked for and cannot run
   */
  choose(kernels: Kernels, buckets: readonly number[]): void {
    if (kernels === "onnx") return;
    const { fused: manifest, mustHaveFused } = this.ways;
    const problem = manifest === undefined ? "the bundle has no graph for it" : this.#open(manifest);
    if (problem !== undefined) {
      if (kernels === "fused" && (manifest !== undefined || mustHaveFused)) {
        throw new MblmError("runtime_unavailable", `kernels: fused cannot be used: ${problem}`);
      }
      this.#description += ` (not the fused one: ${problem})`;
      return;
    }
    const measured = buckets.filter((rows) => rows <= MAX_SMALL_ROWS).map((rows) => this.#compare(rows));
    this.#fusedRows = kernels === "fused" ? measured.at(-1)!.rows : fusedRows(measured);
    const times = measured.map(({ rows, fused, onnx }) => `${rows}: ${micros(fused)} and ${micros(onnx)}`).join(", ");
    this.#description =
      `the fused kernel for up to ${this.#fusedRows} rows, one kernel for each operator beyond ` +
      `(µs a run by rows, fused and not: ${times})`;
    if (this.#fusedRows === 0) this.#close();
  }

  /** Whether the fused kernel gave up waiting for a part of itself. Waits for the device. */
  hasFailed(): boolean {
    return this.#fused?.hasFailed() ?? false;
  }

  /** The fused kernel did not end by itself: what it left cannot be trusted, and it may do so again. */
  abandon(): void {
    this.#close();
    this.#description = "one kernel for each operator (the fused one failed)";
  }

  /** @returns why not */
  #open(manifest: FusedManifest): string | undefined {
    this.#fused = new FusedKernel(this.bundle, manifest, this.backend, this.ways.ports);
    this.ways.sendTrial(1);
    const problem = this.#fused.findProblem();
    if (problem !== undefined) this.#close();
    return problem;
  }

  #close(): void {
    this.#fused?.dispose();
    this.#fused = undefined;
    this.#fusedRows = 0;
  }

  #compare(rows: number): BatchSeconds {
    this.ways.sendTrial(rows);
    return { rows, fused: this.#time(this.#fused!.binding(rows)), onnx: this.#time(this.ways.operators(rows)) };
  }

  /** Seconds of a run. */
  #time(binding: DeviceBinding): number {
    const { device } = this.backend;
    for (let i = 0; i < WARM_UP_RUNS; i++) binding.run();
    device.mark(MARK.start);
    for (let i = 0; i < TIMED_RUNS; i++) binding.run();
    device.mark(MARK.end);
    device.synchronize();
    return device.secondsBetween(MARK.start, MARK.end) / TIMED_RUNS;
  }

  dispose(): void {
    this.#close();
  }
}

/** Seconds of a batch in the one and in the other way. */
export interface BatchSeconds {
  readonly rows: number;
  readonly fused: number;
  readonly onnx: number;
}

/** The largest batch size up to which the fused kernel is never slower; 0: it is slower for one row. `measured` has ascending sizes. */
export function fusedRows(measured: readonly BatchSeconds[]): number {
  let rows = 0;
  for (const seconds of measured) {
    if (seconds.fused > seconds.onnx) break;
    rows = seconds.rows;
  }
  return rows;
}

function micros(seconds: number): string {
  return (1e6 * seconds).toFixed(0);
}
