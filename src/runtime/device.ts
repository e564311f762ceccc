/** Element types of device tensors, with ONNX's numbers and their sizes in bytes. */
export const ELEMENT = {
  float32: { type: 1, bytes: 4 },
  uint8: { type: 2, bytes: 1 },
  int32: { type: 6, bytes: 4 },
  int64: { type: 7, bytes: 8 },
  float16: { type: 10, bytes: 2 },
  float64: { type: 11, bytes: 8 },
  bfloat16: { type: 16, bytes: 2 },
} as const;

export type ElementName = keyof typeof ELEMENT;

/** Memory of a device. It stays where it is until it is freed. */
export interface DeviceBuffer {
  /** As the device sees it. */
  readonly address: bigint;
  readonly byteLength: number;
  /** Later calls do nothing. */
  free(): void;
}

/** A tensor in a device buffer. */
export interface DeviceTensor {
  readonly address: bigint;
  readonly element: ElementName;
  readonly shape: readonly number[];
}

export interface DeviceMemory {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/**
 * Where graphs run and their tensors live. All that is asked of it happens in the order of asking, on one stream; only
 * `download` and `synchronize` wait.
 */
export interface Device {
  /** As its maker calls it. */
  readonly name: string;
  readonly kind: "cuda" | "host";
  /** Memory of the device as a whole; undefined where that is no matter of its own. */
  memory(): DeviceMemory | undefined;
  /** @throws MblmError `runtime_unavailable` when there is not enough memory */
  allocate(byteLength: number): DeviceBuffer;
  /** Copies to the device; `data` may be changed as soon as the call returns. */
  upload(address: bigint, data: ArrayBufferView): void;
  /** Copies from the device, when all that was asked for before is done. */
  download(address: bigint, into: ArrayBufferView): void;
  copy(to: bigint, from: bigint, byteLength: number): void;
  /** Sets bytes to zero. */
  clear(address: bigint, byteLength: number): void;
  /** Waits until all that was asked for is done. */
  synchronize(): void;
  /** Remembers this moment on the device; `index` is 0 to 7. */
  mark(index: number): void;
  /** Seconds from mark `from` to mark `to`, both reached. */
  secondsBetween(from: number, to: number): number;
  /** Frees every buffer that was not freed, too. */
  dispose(): void;
}

/** A graph's inputs and outputs tied to device tensors. */
export interface DeviceBinding {
  /** Runs the graph; does not wait for it on a device that runs by itself. */
  run(): void;
  /** Later calls do nothing. */
  dispose(): void;
}

export interface DeviceSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /**
   * Ties tensors to ports by name; unknown names are ignored, missing ones are an error.
   *
   * @param captures whether the runs of this binding are recorded once and replayed (a CUDA graph): its shapes and
   *   addresses are then fixed
   */
  bind(ports: Readonly<Record<string, DeviceTensor>>, captures: boolean): DeviceBinding;
  /** Releases its bindings, too. Later calls do nothing. */
  dispose(): void;
}

/** ONNX Runtime on a device, with the operators of the domain "mblm". */
export interface DeviceBackend {
  readonly version: string;
  readonly device: Device;
  /** CUDA graphs recorded so far. */
  readonly numCaptures: number;
  /** @param isTrial whether its runs may fail: ONNX Runtime then writes nothing about that beside the error */
  openSession(path: string, isTrial?: boolean): DeviceSession;
  /** Releases all that was opened through it and still is, and its device with all its buffers. Does not throw. */
  dispose(): void;
}

/** Allocates room for a tensor. */
export function allocateTensor(
  device: Device,
  element: ElementName,
  shape: readonly number[],
): DeviceTensor & { readonly buffer: DeviceBuffer } {
  const buffer = device.allocate(tensorBytes(element, shape));
  return { buffer, address: buffer.address, element, shape };
}

export function tensorBytes(element: ElementName, shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, ELEMENT[element].bytes);
}
