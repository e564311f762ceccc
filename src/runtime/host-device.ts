import { systemClock } from "../core/clock.js";
import { MblmError } from "../errors.js";
import type { Device, DeviceBuffer, DeviceMemory } from "./device.js";
import { loadNativeLibrary } from "./native-library.js";

/** The CPU's memory as a device: what runs on a GPU can be run, slowly, where there is none. */
export class HostDevice implements Device {
  readonly name = "host";
  readonly kind = "host";
  readonly #libc = loadNativeLibrary(null);
  readonly #malloc = this.#libc.func("void *aligned_alloc(size_t alignment, size_t size)");
  readonly #free = this.#libc.func("void free(void *memory)");
  readonly #copy = this.#libc.func("void *memcpy(void *to, void *from, size_t size)");
  readonly #set = this.#libc.func("void *memset(void *to, int value, size_t size)");
  readonly #marks = new Float64Array(8);
  /** Addresses of what is not freed. */
  readonly #held = new Set<bigint>();

  memory(): DeviceMemory | undefined {
    return undefined;
  }

  allocate(byteLength: number): DeviceBuffer {
    const address = this.#malloc(256, 256 * Math.max(1, Math.ceil(byteLength / 256))) as bigint;
    if (!address) throw new MblmError("runtime_unavailable", `the host has no ${byteLength} bytes left`);
    this.#held.add(address);
    this.clear(address, byteLength);
    return { address, byteLength, free: () => this.#release(address) };
  }

  #release(address: bigint): void {
    if (this.#held.delete(address)) this.#free(address);
  }

  upload(address: bigint, data: ArrayBufferView): void {
    this.#copy(address, data, data.byteLength);
  }

  download(address: bigint, into: ArrayBufferView): void {
    this.#copy(into, address, into.byteLength);
  }

  copy(to: bigint, from: bigint, byteLength: number): void {
    this.#copy(to, from, byteLength);
  }

  clear(address: bigint, byteLength: number): void {
    this.#set(address, 0, byteLength);
  }

  synchronize(): void {}

  mark(index: number): void {
    this.#marks[index] = systemClock.now();
  }

  secondsBetween(from: number, to: number): number {
    return this.#marks[to]! - this.#marks[from]!;
  }

  dispose(): void {
    for (const address of this.#held) this.#release(address);
  }
}
