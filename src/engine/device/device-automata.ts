import type { ByteAutomaton } from "../../core/byte-automaton.js";
import { MblmError } from "../../errors.js";
import type { Device, DeviceBuffer } from "../../runtime/device.js";
import { LAUNCH_BYTES } from "./limits.js";

interface Held {
  readonly buffer: DeviceBuffer;
  numHolders: number;
}

/** Tables of the automata that sequences on the device follow; those of one request are uploaded once. */
export class DeviceAutomata {
  readonly #held = new Map<SharedArrayBuffer | ArrayBufferLike, Held>();

  constructor(private readonly device: Device) {}

  /** @throws MblmError `overloaded` when the device has no memory for the tables: others may use it besides the server */
  hold(automaton: ByteAutomaton): bigint {
    const key = automaton.next.buffer;
    const known = this.#held.get(key);
    if (known !== undefined) {
      known.numHolders++;
      return known.buffer.address;
    }
    const tables = encodeTables(automaton);
    const buffer = this.#allocate(tables.length);
    this.device.upload(buffer.address, tables);
    this.#held.set(key, { buffer, numHolders: 1 });
    return buffer.address;
  }

  #allocate(byteLength: number): DeviceBuffer {
    const freeBytes = this.device.memory()?.freeBytes ?? Number.POSITIVE_INFINITY;
    if (freeBytes < byteLength + LAUNCH_BYTES) throw noMemory(byteLength);
    try {
      return this.device.allocate(byteLength);
    } catch (cause) {
      // Others were faster, or no piece is large enough.
      throw cause instanceof MblmError && cause.code === "runtime_unavailable" ? noMemory(byteLength, cause) : cause;
    }
  }

  release(automaton: ByteAutomaton): void {
    const key = automaton.next.buffer;
    const held = this.#held.get(key)!;
    if (--held.numHolders > 0) return;
    this.#held.delete(key);
    held.buffer.free();
  }

  dispose(): void {
    for (const { buffer } of this.#held.values()) buffer.free();
    this.#held.clear();
  }
}

function noMemory(byteLength: number, cause?: MblmError): MblmError {
  const tables = `the ${byteLength} bytes of the request's constraint`;
  return new MblmError("overloaded", `The device has no memory left for ${tables}; try again later.`, { cause });
}

/** The layout that native/ops.h describes: distance, next, classes, accepting. */
function encodeTables({ distance, next, classes, accepting }: ByteAutomaton): Uint8Array {
  const parts = [distance, next, classes, accepting].map(
    (part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
  );
  const tables = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    tables.set(part, offset);
    offset += part.length;
  }
  return tables;
}
