import { allocateTensor, type Device, type DeviceBuffer, type DeviceTensor } from "../../runtime/device.js";

/** An int32 graph input: written on the host, sent to the device as far as it is used. */
export class InputBlock {
  readonly values: Int32Array;
  readonly #tensor: DeviceTensor & { readonly buffer: DeviceBuffer };

  /** @param length most values of a run */
  constructor(
    private readonly device: Device,
    length: number,
  ) {
    this.values = new Int32Array(length);
    this.#tensor = allocateTensor(device, "int32", [length]);
  }

  /** The first values in some shape. */
  port(...shape: number[]): DeviceTensor {
    return { ...this.#tensor, shape };
  }

  /** The first values as half as many int64. */
  portOfInt64(...shape: number[]): DeviceTensor {
    return { ...this.#tensor, element: "int64", shape };
  }

  send(count: number): void {
    this.device.upload(this.#tensor.address, this.values.subarray(0, count));
  }

  dispose(): void {
    this.#tensor.buffer.free();
  }
}
