import type { DeviceStateManifest } from "../../bundle/cuda-manifest.js";
import { allocateTensor, type Device, type DeviceBuffer, type DeviceTensor, ELEMENT } from "../../runtime/device.js";

interface State {
  readonly name: string;
  readonly tensor: DeviceTensor & { readonly buffer: DeviceBuffer };
  /** Bytes of one place. */
  readonly bytes: number;
  /** Of a cache [heads, capacity, width]: as runs of bytes, one per head. */
  readonly cache: { readonly numRuns: number; readonly positionBytes: number } | undefined;
}

/**
 * The states of one stage for all places. On the host a state is kept as its bytes, in the form of float32 numbers: exact
 * for every type, and for float32 the numbers themselves.
 */
export class DeviceStates {
  readonly #states: readonly State[];

  constructor(
    manifests: readonly DeviceStateManifest[],
    private readonly device: Device,
    numPlaces: number,
  ) {
    this.#states = manifests.map(({ name, dtype, shape, axis }) => {
      const bytes = shape.reduce((a, b) => a * b, ELEMENT[dtype].bytes);
      const runs = axis === null ? 1 : shape.slice(0, axis).reduce((a, b) => a * b, 1);
      return {
        name,
        tensor: allocateTensor(device, dtype, [numPlaces, ...shape]),
        bytes,
        cache: axis === null ? undefined : { numRuns: runs, positionBytes: bytes / runs / shape[axis]! },
      };
    });
  }

  /** Bytes of all states of a place. */
  get bytesPerPlace(): number {
    return this.#states.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Graph inputs by name, all places. */
  get ports(): Record<string, DeviceTensor> {
    return Object.fromEntries(this.#states.map(({ name, tensor }) => [name, tensor]));
  }

  /** Graph inputs by name, the first `rows` places. */
  portsOfFirst(rows: number): Record<string, DeviceTensor> {
    return Object.fromEntries(
      this.#states.map(({ name, tensor }) => [name, { ...tensor, shape: [rows, ...tensor.shape.slice(1)] }]),
    );
  }

  /** @param numFilled positions of caches that are in use; the rest is left out */
  snapshot(place: number, numFilled: number): Float32Array[] {
    return this.#states.map((state) => {
      const start = state.tensor.address + BigInt(place * state.bytes);
      const { cache } = state;
      if (cache === undefined) return downloadBytes(this.device, start, state.bytes);
      const used = numFilled * cache.positionBytes;
      const values = new Float32Array(Math.ceil((cache.numRuns * used) / 4));
      const pitch = state.bytes / cache.numRuns;
      for (let run = 0; run < cache.numRuns && used > 0; run++) {
        this.device.download(start + BigInt(run * pitch), new Uint8Array(values.buffer, run * used, used));
      }
      return values;
    });
  }

  restore(place: number, snapshot: readonly Float32Array[], numFilled: number): void {
    for (const [i, { tensor, bytes, cache }] of this.#states.entries()) {
      const start = tensor.address + BigInt(place * bytes);
      const values = snapshot[i]!;
      const { buffer, byteOffset } = values;
      if (cache === undefined) {
        this.device.upload(start, new Uint8Array(buffer, byteOffset, bytes));
        continue;
      }
      const used = numFilled * cache.positionBytes;
      const pitch = bytes / cache.numRuns;
      for (let run = 0; run < cache.numRuns && used > 0; run++) {
        this.device.upload(start + BigInt(run * pitch), new Uint8Array(buffer, byteOffset + run * used, used));
      }
    }
  }

  /** Whether the arrays are of these states, with so many positions in caches. */
  fits(snapshot: readonly Float32Array[], numFilled: number): boolean {
    return (
      snapshot.length === this.#states.length &&
      this.#states.every(({ bytes, cache }, i) => {
        const used = cache === undefined ? bytes : cache.numRuns * numFilled * cache.positionBytes;
        return used <= bytes && snapshot[i]!.length === Math.ceil(used / 4);
      })
    );
  }

  dispose(): void {
    for (const { tensor } of this.#states) tensor.buffer.free();
  }
}

/** Bytes of the device in the form of float32 numbers; the last may be padded with zeros. */
export function downloadBytes(device: Device, address: bigint, byteLength: number): Float32Array {
  const values = new Float32Array(Math.ceil(byteLength / 4));
  device.download(address, new Uint8Array(values.buffer, 0, byteLength));
  return values;
}
