import koffi from "koffi";
import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import { type PatchBatch, ROW_WORDS, type SamplingTables } from "../../src/engine/patch-batch.js";
import type { DeviceBuffer } from "../../src/runtime/device.js";
import { HostDevice } from "../../src/runtime/host-device.js";

/** `arguments`: struct Sample of native/ops.h, every field a word of 64 bits. */
type SampleFunction = (callArguments: BigInt64Array, stream: null) => void;

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** The operator Sample of a library, with `S` rows of tables in the host's memory. */
export class SampleOp {
  readonly #call: SampleFunction;
  readonly #device = new HostDevice();
  readonly #rows: DeviceBuffer;
  readonly #forced: DeviceBuffer;
  readonly #logits: DeviceBuffer;
  readonly #bias: DeviceBuffer;
  readonly #counts: DeviceBuffer;
  readonly #idFlags: DeviceBuffer;
  readonly #cursor: DeviceBuffer;
  readonly #ids: DeviceBuffer;
  readonly #logitsOut: DeviceBuffer;
  readonly #next: DeviceBuffer;

  constructor(
    library: string,
    private readonly S: number,
    private readonly V: number,
    private readonly P: number,
  ) {
    this.#call = koffi.load(library).func("void mblm_sample(void *arguments, void *stream)") as SampleFunction;
    const words = (count: number, bytes: number): DeviceBuffer => this.#device.allocate(count * bytes);
    this.#rows = words(S * ROW_WORDS, 4);
    this.#forced = words(S * P, 4);
    this.#logits = words(S * V, 4);
    this.#bias = words(S * V, 8);
    this.#counts = words(S * V, 4);
    this.#idFlags = words(S * V, 1);
    this.#cursor = words(S, 4);
    this.#ids = words(S * P, 4);
    this.#logitsOut = words(S * P * V, 4);
    this.#next = words(S, 4);
  }

  setTables(slot: number, { bias, counts, idFlags }: SamplingTables): void {
    this.#device.upload(this.#bias.address + BigInt(slot * this.V * 8), bias);
    this.#device.upload(this.#counts.address + BigInt(slot * this.V * 4), counts);
    this.#device.upload(this.#idFlags.address + BigInt(slot * this.V), idFlags);
  }

  counts(slot: number): Int32Array {
    return this.#read(this.#counts, this.S * this.V).subarray(slot * this.V, (slot + 1) * this.V);
  }

  /** Puts an automaton's tables where a row can name them. */
  hold({ distance, next, classes, accepting }: ByteAutomaton): DeviceBuffer {
    const tables = Buffer.concat([distance, next, classes, accepting].map(bytesOf));
    const buffer = this.#device.allocate(tables.length);
    this.#device.upload(buffer.address, tables);
    return buffer;
  }

  /** What follows byte `step` of each row: the ids, and what the next byte's embedding reads. */
  run(batch: PatchBatch, step: number, logits: Float32Array): { ids: number[]; next: number[] } {
    this.#device.upload(this.#rows.address, batch.words);
    this.#device.upload(this.#forced.address, batch.forced);
    this.#device.upload(this.#logits.address, logits);
    const sizes = [batch.numRows, this.V, this.P, step].map(BigInt);
    const buffers = [
      ...[this.#logits, this.#rows, this.#forced, this.#bias, this.#counts, this.#idFlags],
      ...[this.#cursor, this.#ids, this.#logitsOut, this.#next],
    ];
    this.#call(BigInt64Array.from([...sizes, ...buffers.map(({ address }) => address)]), null);
    const ids = this.#read(this.#ids, batch.numRows * this.P);
    return {
      ids: Array.from({ length: batch.numRows }, (_, row) => ids[row * this.P + step]!),
      next: [...this.#read(this.#next, batch.numRows)],
    };
  }

  #read(buffer: DeviceBuffer, count: number): Int32Array {
    const values = new Int32Array(count);
    this.#device.download(buffer.address, values);
    return values;
  }

  dispose(): void {
    for (const buffer of [
      ...[this.#rows, this.#forced, this.#logits, this.#bias, this.#counts, this.#idFlags],
      ...[this.#cursor, this.#ids, this.#logitsOut, this.#next],
    ])
      buffer.free();
  }
}
