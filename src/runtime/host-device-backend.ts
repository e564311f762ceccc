import type { DeviceBackend } from "./device.js";
import { OrtDeviceBackend } from "./device-backend.js";
import { HostDevice } from "./host-device.js";

/**
 * The graphs of a device on the CPU, with the operators' readable implementation: slow, and the same in all that matters. It is
 * what tests run where there is no GPU.
 *
 * @param opsLibrary native/build/libmblm_ops_reference.so
 */
export function openHostDeviceBackend(opsLibrary: string): DeviceBackend {
  return new OrtDeviceBackend({
    device: new HostDevice(),
    provider: { memory: ["Cpu", 0], configure: () => {}, canCapture: false },
    opsLibrary,
  });
}
