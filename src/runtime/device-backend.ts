import { MblmError } from "../errors.js";
import {
  type Device,
  type DeviceBackend,
  type DeviceBinding,
  type DeviceSession,
  type DeviceTensor,
  ELEMENT,
  tensorBytes,
} from "./device.js";
import { loadOrtLibrary, type OrtLibrary, type Pointer } from "./ort-library.js";
import { portNames } from "./port-names.js";

const OPTIMIZE_ALL = 99;
const LOG_ERRORS = 3;
const LOG_NOTHING = 4;
const DEVICE_ALLOCATOR = 0;
const DEFAULT_MEMORY = 0;
/** ONNX Runtime's word for a run that is neither recorded nor replayed. */
const NO_CAPTURE = "-1";

/** What distinguishes one device's sessions from another's. */
export interface DeviceProvider {
  /** ONNX Runtime's name of the device's memory, and the device's number. */
  readonly memory: readonly [name: string, device: number];
  /** Adds the execution provider to a session's options. */
  configure(ort: OrtLibrary, sessionOptions: Pointer): void;
  /** Whether bindings can be recorded. */
  readonly canCapture: boolean;
}

export interface DeviceBackendOptions {
  readonly device: Device;
  readonly provider: DeviceProvider;
  /** Library of the operators of the domain "mblm", built for the device. */
  readonly opsLibrary: string;
  /** ONNX Runtime's core library; undefined = onnxruntime-node's. */
  readonly coreLibrary?: string;
}

/** Drives ONNX Runtime's C API with tensors in a device's memory. */
export class OrtDeviceBackend implements DeviceBackend {
  readonly version: string;
  readonly device: Device;
  readonly #ort: OrtLibrary;
  readonly #env: Pointer;
  readonly #memory: Pointer;
  readonly #options: DeviceBackendOptions;
  readonly #sessions = new Set<OrtDeviceSession>();
  #numCaptures = 0;

  constructor(options: DeviceBackendOptions) {
    this.#options = options;
    this.device = options.device;
    this.#ort = loadOrtLibrary(options.coreLibrary);
    this.version = this.#ort.version;
    this.#env = this.#ort.create("CreateEnv", LOG_ERRORS, "mblm-server");
    const [name, number] = options.provider.memory;
    this.#memory = this.#ort.create("CreateMemoryInfo", name, DEVICE_ALLOCATOR, number, DEFAULT_MEMORY);
  }

  get numCaptures(): number {
    return this.#numCaptures;
  }

  openSession(path: string, isTrial = false): DeviceSession {
    const { api, check, create } = this.#ort;
    const { provider, opsLibrary } = this.#options;
    const options = create("CreateSessionOptions");
    try {
      check(api.SetSessionGraphOptimizationLevel(options, OPTIMIZE_ALL));
      if (isTrial) check(api.SetSessionLogSeverityLevel(options, LOG_NOTHING));
      check(api.SetIntraOpNumThreads(options, 1));
      check(api.SetInterOpNumThreads(options, 1));
      check(api.RegisterCustomOpsLibrary_V2(options, opsLibrary));
      provider.configure(this.#ort, options);
      const handle = create("CreateSession", this.#env, path, options);
      const runOptions = (captures: boolean) => this.#runOptions(captures);
      const session = new OrtDeviceSession(this.#ort, handle, this.#memory, runOptions, () => {
        this.#sessions.delete(session);
      });
      this.#sessions.add(session);
      return session;
    } finally {
      api.ReleaseSessionOptions(options);
    }
  }

  /** Options of a binding's runs; a recorded binding has a number of its own. */
  #runOptions(captures: boolean): Pointer {
    const { api, check, create } = this.#ort;
    const options = create("CreateRunOptions");
    if (!this.#options.provider.canCapture) return options;
    const id = captures ? String(++this.#numCaptures) : NO_CAPTURE;
    check(api.AddRunConfigEntry(options, "gpu_graph_id", id));
    check(api.AddRunConfigEntry(options, "disable_synchronize_execution_providers", "1"));
    return options;
  }

  /** Ends its sessions, too: one that is left when the environment goes ends the process. */
  dispose(): void {
    try {
      this.device.synchronize();
    } catch {
      // Of a device that has failed nothing runs any more.
    }
    for (const session of this.#sessions) session.dispose();
    this.#ort.api.ReleaseMemoryInfo(this.#memory);
    this.#ort.api.ReleaseEnv(this.#env);
    this.device.dispose();
  }
}

class OrtDeviceSession implements DeviceSession {
  #isDisposed = false;
  readonly #bindings = new Set<OrtDeviceBinding>();
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];

  constructor(
    private readonly ort: OrtLibrary,
    private readonly session: Pointer,
    private readonly memory: Pointer,
    private readonly runOptions: (captures: boolean) => Pointer,
    private readonly onDispose: () => void,
  ) {
    this.inputNames = portNames(ort, session, "input");
    this.outputNames = portNames(ort, session, "output");
  }

  bind(ports: Readonly<Record<string, DeviceTensor>>, captures: boolean): DeviceBinding {
    const options = this.runOptions(captures);
    const binding = new OrtDeviceBinding(this.ort, this.session, options, () => this.#bindings.delete(binding));
    this.#bindings.add(binding);
    for (const name of this.inputNames) binding.tie("BindInput", name, ports[name], this.memory);
    for (const name of this.outputNames) binding.tie("BindOutput", name, ports[name], this.memory);
    return binding;
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    for (const binding of this.#bindings) binding.dispose();
    this.ort.api.ReleaseSession(this.session);
    this.onDispose();
  }
}

class OrtDeviceBinding implements DeviceBinding {
  readonly #binding: Pointer;
  readonly #values: Pointer[] = [];
  #isDisposed = false;

  /** @param runOptions the binding's own: it releases them */
  constructor(
    private readonly ort: OrtLibrary,
    private readonly session: Pointer,
    private readonly runOptions: Pointer,
    private readonly onDispose: () => void,
  ) {
    this.#binding = ort.create("CreateIoBinding", session);
  }

  /** @throws MblmError `bundle_invalid` when there is no such tensor */
  tie(call: "BindInput" | "BindOutput", name: string, tensor: DeviceTensor | undefined, memory: Pointer): void {
    if (!tensor)
      throw new MblmError("bundle_invalid", `a graph asks for a tensor ${name} that the server does not have`);
    const { address, element, shape } = tensor;
    const dims = BigInt64Array.from(shape, BigInt);
    const bytes = tensorBytes(element, shape);
    const { type } = ELEMENT[element];
    const value = this.ort.create("CreateTensorWithDataAsOrtValue", memory, address, bytes, dims, dims.length, type);
    this.#values.push(value);
    this.ort.check(this.ort.api[call](this.#binding, name, value));
  }

  run(): void {
    const status = this.ort.api.RunWithBinding(this.session, this.runOptions, this.#binding);
    if (status) this.ort.check(status);
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.ort.api.ReleaseIoBinding(this.#binding);
    this.ort.api.ReleaseRunOptions(this.runOptions);
    for (const value of this.#values) this.ort.api.ReleaseValue(value);
    this.#values.length = 0;
    this.onDispose();
  }
}
