import type { DeviceBackend } from "../device.js";
import { OrtDeviceBackend } from "../device-backend.js";
import type { OrtLibrary } from "../ort-library.js";
import { CudaDevice } from "./cuda-device.js";
import type { CudaLibraries } from "./cuda-libraries.js";

/** ONNX Runtime's CUDA execution provider with our operators, on the device's one stream. @throws MblmError `runtime_unavailable` */
export function openCudaBackend(libraries: CudaLibraries): DeviceBackend {
  const device = new CudaDevice(libraries);
  const options = {
    device_id: String(libraries.deviceIndex),
    has_user_compute_stream: "1",
    user_compute_stream: String(device.stream),
    enable_cuda_graph: "1",
    // Products in float32 are not rounded to 10 bits of mantissa.
    use_tf32: "0",
    // The arena asks for what it needs, not for twice as much each time.
    arena_extend_strategy: "kSameAsRequested",
  };
  const configure = (ort: OrtLibrary, sessionOptions: unknown): void => {
    const { api, check, create } = ort;
    const provider = create("CreateCUDAProviderOptions");
    try {
      const [keys, values] = [Object.keys(options), Object.values(options)];
      check(api.UpdateCUDAProviderOptions(provider, keys, values, keys.length));
      check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(sessionOptions, provider));
      // A node that fell back to the CPU would make every byte wait for two copies, and could not be recorded.
      check(api.AddSessionConfigEntry(sessionOptions, "session.disable_cpu_ep_fallback", "1"));
    } finally {
      api.ReleaseCUDAProviderOptions(provider);
    }
  };
  try {
    return new OrtDeviceBackend({
      device,
      provider: { memory: ["Cuda", libraries.deviceIndex], configure, canCapture: true },
      opsLibrary: libraries.opsLibrary,
      coreLibrary: libraries.coreLibrary,
    });
  } catch (thrown) {
    device.dispose();
    throw thrown;
  }
}
