import { basename } from "node:path";
import { MblmError } from "../../errors.js";
import type { Device, DeviceBuffer, DeviceMemory } from "../device.js";
import { loadNativeLibrary, type NativeLibrary } from "../native-library.js";
import type { CudaLibraries } from "./cuda-libraries.js";

const HOST_TO_DEVICE = 1;
const DEVICE_TO_HOST = 2;
const DEVICE_TO_DEVICE = 3;
const NON_BLOCKING = 1;
const OUT_OF_MEMORY = 2;
const NUM_MARKS = 8;
const NAME_BYTES = 128;

// biome-ignore lint/suspicious/noExplicitAny: FFI functions are typed by their declarations at run time.
type NativeFunction = (...args: any[]) => any;

/** One CUDA device, through the CUDA runtime library. */
export class CudaDevice implements Device {
  readonly kind = "cuda";
  readonly name: string;
  /** Everything runs on it, ONNX Runtime's graphs too. */
  readonly stream: bigint;
  readonly #call: Readonly<Record<keyof typeof SIGNATURES, NativeFunction>>;
  readonly #marks: readonly bigint[];
  /** Addresses of what is not freed. */
  readonly #held = new Set<bigint>();

  /** @throws MblmError `runtime_unavailable` when a library or the device cannot be used */
  constructor({ cudaLibraries, deviceIndex }: CudaLibraries) {
    const loaded = new Map(cudaLibraries.map((path) => [basename(path), loadNativeLibrary(path)]));
    const runtime = [...loaded].find(([name]) => name.startsWith("libcudart.so"))?.[1];
    if (runtime === undefined) throw new MblmError("runtime_unavailable", "libcudart is not among CUDA's libraries");
    this.#call = bind(runtime);
    this.#check("cudaSetDevice", this.#call.cudaSetDevice(deviceIndex));
    this.name = deviceName(loadNativeLibrary("libcuda.so.1"), deviceIndex);
    this.stream = this.#create("cudaStreamCreateWithFlags", NON_BLOCKING);
    this.#marks = Array.from({ length: NUM_MARKS }, () => this.#create("cudaEventCreateWithFlags", 0));
  }

  #check(what: string, status: number): void {
    if (status === 0) return;
    const message = `${what}: ${this.#call.cudaGetErrorString(status)}`;
    // Else whoever asks next whether a launch failed, such as ONNX Runtime, would be told of this failure.
    this.#call.cudaGetLastError();
    throw new MblmError(status === OUT_OF_MEMORY ? "runtime_unavailable" : "engine_failed", `CUDA: ${message}`);
  }

  #create(name: "cudaStreamCreateWithFlags" | "cudaEventCreateWithFlags", flags: number): bigint {
    const out: [bigint] = [0n];
    this.#check(name, this.#call[name](out, flags));
    return out[0];
  }

  memory(): DeviceMemory {
    const [free, total]: [[bigint | number], [bigint | number]] = [[0], [0]];
    this.#check("cudaMemGetInfo", this.#call.cudaMemGetInfo(free, total));
    return { freeBytes: Number(free[0]), totalBytes: Number(total[0]) };
  }

  allocate(byteLength: number): DeviceBuffer {
    const out: [bigint] = [0n];
    this.#check(`allocating ${byteLength} bytes`, this.#call.cudaMalloc(out, Math.max(byteLength, 1)));
    const [address] = out;
    this.#held.add(address);
    this.clear(address, byteLength);
    return { address, byteLength, free: () => this.#release(address) };
  }

  #release(address: bigint): void {
    if (this.#held.delete(address)) this.#check("cudaFree", this.#call.cudaFree(address));
  }

  // From memory that is not pinned, the runtime copies to a staging buffer before the call returns.
  upload(address: bigint, data: ArrayBufferView): void {
    const status = this.#call.cudaMemcpyAsync(address, data, data.byteLength, HOST_TO_DEVICE, this.stream);
    if (status) this.#check("copying to the device", status);
  }

  download(address: bigint, into: ArrayBufferView): void {
    const status = this.#call.cudaMemcpyAsync(into, address, into.byteLength, DEVICE_TO_HOST, this.stream);
    if (status) this.#check("copying from the device", status);
    this.synchronize();
  }

  copy(to: bigint, from: bigint, byteLength: number): void {
    const status = this.#call.cudaMemcpyAsync(to, from, byteLength, DEVICE_TO_DEVICE, this.stream);
    this.#check("copying on the device", status);
  }

  clear(address: bigint, byteLength: number): void {
    this.#check("cudaMemsetAsync", this.#call.cudaMemsetAsync(address, 0, byteLength, this.stream));
  }

  synchronize(): void {
    const status = this.#call.cudaStreamSynchronize(this.stream);
    if (status) this.#check("the device's work", status);
  }

  mark(index: number): void {
    this.#check("cudaEventRecord", this.#call.cudaEventRecord(this.#marks[index], this.stream));
  }

  secondsBetween(from: number, to: number): number {
    const out: [number] = [0];
    this.#check("cudaEventElapsedTime", this.#call.cudaEventElapsedTime(out, this.#marks[from], this.#marks[to]));
    return out[0] / 1000;
  }

  /** A device that has failed frees nothing, and says so at every call: nobody can do anything about that any more. */
  dispose(): void {
    this.#call.cudaStreamSynchronize(this.stream);
    for (const address of this.#held) this.#call.cudaFree(address);
    this.#held.clear();
    for (const mark of this.#marks) this.#call.cudaEventDestroy(mark);
    this.#call.cudaStreamDestroy(this.stream);
  }
}

const SIGNATURES = {
  cudaGetErrorString: ["const char *", ["int"]],
  cudaGetLastError: ["int", []],
  cudaSetDevice: ["int", ["int"]],
  cudaMemGetInfo: ["int", ["_Out_ size_t *", "_Out_ size_t *"]],
  cudaMalloc: ["int", ["_Out_ void **", "size_t"]],
  cudaFree: ["int", ["void *"]],
  cudaMemcpyAsync: ["int", ["void *", "void *", "size_t", "int", "void *"]],
  cudaMemsetAsync: ["int", ["void *", "int", "size_t", "void *"]],
  cudaStreamCreateWithFlags: ["int", ["_Out_ void **", "unsigned int"]],
  cudaStreamSynchronize: ["int", ["void *"]],
  cudaStreamDestroy: ["int", ["void *"]],
  cudaEventCreateWithFlags: ["int", ["_Out_ void **", "unsigned int"]],
  cudaEventRecord: ["int", ["void *", "void *"]],
  cudaEventElapsedTime: ["int", ["_Out_ float *", "void *", "void *"]],
  cudaEventDestroy: ["int", ["void *"]],
} as const;

function bind(library: NativeLibrary): Record<keyof typeof SIGNATURES, NativeFunction> {
  const functions = Object.entries(SIGNATURES).map(([name, [result, parameters]]) => [
    name,
    library.func(name, result, [...parameters]),
  ]);
  return Object.fromEntries(functions) as Record<keyof typeof SIGNATURES, NativeFunction>;
}

/** By the driver's library: the runtime's structure of properties changes with every version. */
function deviceName(driver: NativeLibrary, index: number): string {
  const get = driver.func("cuDeviceGet", "int", ["_Out_ int *", "int"]);
  const getName = driver.func("cuDeviceGetName", "int", ["void *", "int", "int"]);
  const device: [number] = [0];
  const name = Buffer.alloc(NAME_BYTES);
  if (get(device, index) !== 0 || getName(name, name.length, device[0]) !== 0) return "unknown CUDA device";
  return name.toString("latin1", 0, name.indexOf(0));
}
