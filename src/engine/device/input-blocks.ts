import { allocateTensor, type Device, type DeviceBuffer, type DeviceTensor } from "../../runtime/device.js";

/** Every block begins at a multiple of so many values: 16 bytes. */
const ALIGNMENT = 4;

/** How many values of each block a run has. */
type Counts<Name extends string> = Readonly<Record<Name, number>>;

/** int32 graph inputs: each written on the host by itself, all of a run sent to the device side by side, in one copy. */
export class InputBlocks<Name extends string> {
  /** By name, as many values as a run has at most. */
  readonly values: Readonly<Record<Name, Int32Array>>;
  readonly #names: readonly Name[];
  readonly #packed: Int32Array;
  readonly #tensor: DeviceTensor & { readonly buffer: DeviceBuffer };

  /** @param most values of each block in a run */
  constructor(
    private readonly device: Device,
    most: Counts<Name>,
  ) {
    this.#names = Object.keys(most) as Name[];
    const entries = this.#names.map((name) => [name, new Int32Array(most[name])]);
    this.values = Object.fromEntries(entries) as Record<Name, Int32Array>;
    const length = this.#names.reduce((sum, name) => sum + aligned(most[name]), 0);
    this.#packed = new Int32Array(length);
    this.#tensor = allocateTensor(device, "int32", [length]);
  }

  /** A block in some shape, where it is in runs with these counts. */
  port(counts: Counts<Name>, name: Name, ...shape: number[]): DeviceTensor {
    let offset = 0;
    for (const before of this.#names.slice(0, this.#names.indexOf(name))) offset += aligned(counts[before]);
    return { address: this.#tensor.address + BigInt(4 * offset), element: "int32", shape };
  }

  /** A block as half as many int64. */
  portOfInt64(counts: Counts<Name>, name: Name, ...shape: number[]): DeviceTensor {
    return { ...this.port(counts, name, ...shape), element: "int64" };
  }

  send(counts: Counts<Name>): void {
    let offset = 0;
    for (const name of this.#names) {
      const count = counts[name];
      this.#packed.set(this.values[name].subarray(0, count), offset);
      offset += aligned(count);
    }
    this.device.upload(this.#tensor.address, this.#packed.subarray(0, offset));
  }

  dispose(): void {
    this.#tensor.buffer.free();
  }
}

function aligned(count: number): number {
  return Math.ceil(count / ALIGNMENT) * ALIGNMENT;
}
