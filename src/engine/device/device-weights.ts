import { open } from "node:fs/promises";
import type { CudaManifest } from "../../bundle/cuda-manifest.js";
import type { Device, DeviceBuffer, DeviceTensor } from "../../runtime/device.js";

const PIECE_BYTES = 64 * 2 ** 20;

/** A bundle's weights in a device's memory: uploaded once, tied to every graph. */
export class DeviceWeights {
  private constructor(
    readonly tensors: Readonly<Record<string, DeviceTensor>>,
    private readonly buffer: DeviceBuffer,
  ) {}

  /** @param path of the weights file, whose size and checksum are known to be right */
  static async load(path: string, { tensors }: CudaManifest["weights"], device: Device): Promise<DeviceWeights> {
    const file = await open(path);
    try {
      const { size } = await file.stat();
      const buffer = device.allocate(size);
      const piece = new Uint8Array(Math.min(size, PIECE_BYTES));
      for (let offset = 0; offset < size; ) {
        const { bytesRead } = await file.read(piece, 0, piece.length, offset);
        if (bytesRead === 0) break;
        device.upload(buffer.address + BigInt(offset), piece.subarray(0, bytesRead));
        device.synchronize();
        offset += bytesRead;
      }
      const entries = Object.entries(tensors).map(([name, { dtype, shape, offset }]) => {
        return [name, { address: buffer.address + BigInt(offset), element: dtype, shape }] as const;
      });
      return new DeviceWeights(Object.fromEntries(entries), buffer);
    } finally {
      await file.close();
    }
  }

  get byteLength(): number {
    return this.buffer.byteLength;
  }

  /** Copies a float32 tensor to the host. */
  read(name: string, device: Device): Float32Array {
    const { address, shape } = this.tensors[name]!;
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    device.download(address, values);
    return values;
  }

  dispose(): void {
    this.buffer.free();
  }
}
