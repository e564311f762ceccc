import type { Bundle } from "../../bundle/bundle.js";
import type { FusedManifest } from "../../bundle/cuda-manifest.js";
import {
  allocateTensor,
  type DeviceBackend,
  type DeviceBinding,
  type DeviceBuffer,
  type DeviceSession,
  type DeviceTensor,
} from "../../runtime/device.js";

/** What ONNX Runtime and the operator's name put before the kernel's own words. */
const AROUND_REASON = /^.*?(LocalPatch|MambaStep)_\w+: (\1: )?/s;
/** Where the kernel's memory says that it gave up waiting for a part of itself. */
const ERROR_WORD = 4n;

/** A stage as one kernel, for batches of few rows: its graph, and its own memory for each batch size. */
export class FusedKernel {
  readonly #session: DeviceSession;
  readonly #bindings = new Map<number, DeviceBinding>();
  readonly #buffers: DeviceBuffer[] = [];

  /** @param ports tensors of the graph for so many rows, but for the kernel's own memory */
  constructor(
    bundle: Bundle,
    private readonly manifest: FusedManifest,
    private readonly backend: DeviceBackend,
    private readonly ports: (rows: number) => Record<string, DeviceTensor>,
  ) {
    this.#session = backend.openSession(bundle.path(manifest.graph), true);
  }

  /** Why the kernel cannot run here, by its own word; undefined when it can. It computes a batch of one row. */
  findProblem(): string | undefined {
    const binding = this.#session.bind(this.#portsOf(1), false);
    try {
      binding.run();
      this.backend.device.synchronize();
      return undefined;
    } catch (thrown) {
      return (thrown as Error).message.replace(AROUND_REASON, "");
    } finally {
      binding.dispose();
    }
  }

  binding(rows: number): DeviceBinding {
    let binding = this.#bindings.get(rows);
    if (!binding) {
      binding = this.#session.bind(this.#portsOf(rows), true);
      this.#bindings.set(rows, binding);
    }
    return binding;
  }

  /** Whether it has ever given up waiting for a part of itself. Waits for the device. */
  hasFailed(): boolean {
    const word = new Int32Array(1);
    return this.#buffers.some(({ address }) => {
      this.backend.device.download(address + ERROR_WORD, word);
      return word[0] !== 0;
    });
  }

  /** The memory is zeros at first, which the kernel counts on, and belongs to one binding. */
  #portsOf(rows: number): Record<string, DeviceTensor> {
    const { scratch_bytes, scratch_bytes_per_row } = this.manifest;
    const scratch = allocateTensor(this.backend.device, "uint8", [scratch_bytes + rows * scratch_bytes_per_row]);
    this.#buffers.push(scratch.buffer);
    return { ...this.ports(rows), scratch };
  }

  dispose(): void {
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#session.dispose();
    for (const buffer of this.#buffers) buffer.free();
  }
}
