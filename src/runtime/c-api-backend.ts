import { type Backend, type Binding, requireTensor, type Session, type Tensor } from "./backend.js";
import { loadOrtLibrary, type OrtLibrary, type Pointer } from "./ort-library.js";
import { portNames } from "./port-names.js";

const OPTIMIZE_ALL = 99;
const LOG_ERRORS = 3;
/** ONNXTensorElementDataType. */
const ELEMENT_TYPE = { float32: 1, int32: 6, int64: 7 } as const;

function elementType(tensor: Tensor): number {
  if (tensor.data instanceof Float32Array) return ELEMENT_TYPE.float32;
  return tensor.data instanceof Int32Array ? ELEMENT_TYPE.int32 : ELEMENT_TYPE.int64;
}

/** Drives ONNX Runtime's C API: tensors are views of the caller's memory and a run is one synchronous native call. */
export class CApiBackend implements Backend {
  readonly kind = "c-api";
  readonly version: string;
  readonly #ort: OrtLibrary;
  readonly #env: Pointer;
  readonly #memory: Pointer;
  readonly #runOptions: Pointer;
  readonly #sessions = new Set<CApiSession>();

  constructor() {
    this.#ort = loadOrtLibrary();
    this.version = this.#ort.version;
    this.#env = this.#ort.create("CreateEnv", LOG_ERRORS, "mblm-server");
    this.#memory = this.#ort.create("CreateCpuMemoryInfo", 0, 0);
    this.#runOptions = this.#ort.create("CreateRunOptions");
  }

  async openSession(path: string, numThreads: number): Promise<Session> {
    const { api, check, create } = this.#ort;
    const options = create("CreateSessionOptions");
    try {
      check(api.SetSessionGraphOptimizationLevel(options, OPTIMIZE_ALL));
      check(api.SetIntraOpNumThreads(options, numThreads));
      check(api.SetInterOpNumThreads(options, 1));
      // Spinning workers would take the core that the HTTP thread needs.
      check(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", numThreads > 1 ? "1" : "0"));
      const handle = create("CreateSession", this.#env, path, options);
      const session = new CApiSession(this.#ort, handle, this.#memory, this.#runOptions, () => {
        this.#sessions.delete(session);
      });
      this.#sessions.add(session);
      return session;
    } finally {
      api.ReleaseSessionOptions(options);
    }
  }

  dispose(): void {
    for (const session of this.#sessions) session.dispose();
    this.#ort.api.ReleaseRunOptions(this.#runOptions);
    this.#ort.api.ReleaseMemoryInfo(this.#memory);
    this.#ort.api.ReleaseEnv(this.#env);
  }
}

class CApiSession implements Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly #bindings = new Set<CApiBinding>();
  #isDisposed = false;

  constructor(
    private readonly ort: OrtLibrary,
    private readonly session: Pointer,
    private readonly memory: Pointer,
    private readonly runOptions: Pointer,
    private readonly onDispose: () => void,
  ) {
    this.inputNames = portNames(ort, session, "input");
    this.outputNames = portNames(ort, session, "output");
  }

  bind(inputs: Readonly<Record<string, Tensor>>, outputs: Readonly<Record<string, Tensor>>): Binding {
    const ports = [
      ...this.inputNames.map((name) => ["BindInput", name, requireTensor(inputs, name)] as const),
      ...this.outputNames.map((name) => ["BindOutput", name, requireTensor(outputs, name)] as const),
    ];
    const binding = new CApiBinding(this.ort, this.session, this.runOptions, () => this.#bindings.delete(binding));
    this.#bindings.add(binding);
    binding.tie(this.memory, ports);
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

class CApiBinding implements Binding {
  readonly #binding: Pointer;
  readonly #values: Pointer[] = [];
  /** Keeps the wrapped memory alive: ONNX Runtime holds raw pointers into it and nothing else does. */
  readonly #pinned: Tensor[] = [];
  #isDisposed = false;

  constructor(
    private readonly ort: OrtLibrary,
    private readonly session: Pointer,
    private readonly runOptions: Pointer,
    private readonly onDispose: () => void,
  ) {
    this.#binding = ort.create("CreateIoBinding", session);
  }

  tie(memory: Pointer, ports: readonly (readonly ["BindInput" | "BindOutput", string, Tensor])[]): void {
    const { ort } = this;
    const wrapped = new Map<Tensor, Pointer>();
    for (const [bind, name, tensor] of ports) {
      let value = wrapped.get(tensor);
      if (value === undefined) {
        value = this.#wrap(memory, tensor);
        wrapped.set(tensor, value);
        this.#values.push(value);
        this.#pinned.push(tensor);
      }
      ort.check(ort.api[bind](this.#binding, name, value));
    }
  }

  #wrap(memory: Pointer, { data, shape }: Tensor): Pointer {
    const dims = BigInt64Array.from(shape, BigInt);
    const type = elementType({ data, shape });
    return this.ort.create("CreateTensorWithDataAsOrtValue", memory, data, data.byteLength, dims, dims.length, type);
  }

  run(): void {
    const status = this.ort.api.RunWithBinding(this.session, this.runOptions, this.#binding);
    if (status) this.ort.check(status);
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.ort.api.ReleaseIoBinding(this.#binding);
    for (const value of this.#values) this.ort.api.ReleaseValue(value);
    this.#values.length = this.#pinned.length = 0;
    this.onDispose();
  }
}
