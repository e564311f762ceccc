/** What is loaded to run on a CUDA device. All paths are absolute. */
export interface CudaLibraries {
  /** ONNX Runtime's core library that lies beside its provider libraries: that is where it looks for them. */
  readonly coreLibrary: string;
  /** Our operators, for RegisterCustomOpsLibrary_V2. */
  readonly opsLibrary: string;
  /**
   * CUDA's own libraries, each after those that it needs. Loaded by path in this order before the provider, they are found by
   * name when it asks for them, without LD_LIBRARY_PATH.
   */
  readonly cudaLibraries: readonly string[];
  /** Which of the devices that the driver shows. */
  readonly deviceIndex: number;
}

/** What the setting `device` asks for. */
export interface DeviceSetting {
  /** `auto`: a device where one is usable, else the CPU. */
  readonly kind: "auto" | "cpu" | "cuda";
  /** Which of the devices that the driver shows, ≥ 0. */
  readonly index: number;
  /** Folder of ONNX Runtime's libraries for CUDA; empty: where install-cuda puts them. */
  readonly cudaDir: string;
}

/** @param device `auto`, `cpu`, `cuda` or `cuda:N` */
export function parseDevice(device: string, cudaDir: string): DeviceSetting {
  const [kind, index = "0"] = device.split(":");
  return { kind: kind as DeviceSetting["kind"], index: Number(index), cudaDir };
}
