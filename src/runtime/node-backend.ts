import * as ort from "onnxruntime-node";
import { type Backend, type Binding, requireTensor, type Session, type Tensor } from "./backend.js";
import { disableTelemetry } from "./no-telemetry.js";
import { PINNED_VERSION } from "./ort-library.js";

/**
 * onnxruntime-node's own API behind the same interface, for platforms where the C API cannot be bound, and as a second
 * opinion in tests. Every output is copied out of a fresh tensor, so it is several times slower on small graphs.
 */
export class NodeBackend implements Backend {
  readonly kind = "node";
  readonly version = PINNED_VERSION;
  readonly #sessions = new Set<NodeSession>();

  constructor() {
    disableTelemetry();
  }

  async openSession(path: string, numThreads: number): Promise<Session> {
    const opened = await ort.InferenceSession.create(path, {
      graphOptimizationLevel: "all",
      intraOpNumThreads: numThreads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    const session: NodeSession = new NodeSession(opened, () => this.#sessions.delete(session));
    this.#sessions.add(session);
    return session;
  }

  dispose(): void {
    for (const session of this.#sessions) session.dispose();
  }
}

class NodeSession implements Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];

  #isDisposed = false;

  constructor(
    private readonly session: ort.InferenceSession,
    private readonly onDispose: () => void,
  ) {
    this.inputNames = session.inputNames;
    this.outputNames = session.outputNames;
  }

  bind(inputs: Readonly<Record<string, Tensor>>, outputs: Readonly<Record<string, Tensor>>): Binding {
    const feeds = Object.fromEntries(
      this.inputNames.map((name) => {
        const { data, shape } = requireTensor(inputs, name);
        return [name, new ort.Tensor(data as Float32Array, [...shape])];
      }),
    );
    const targets = this.outputNames.map((name) => [name, requireTensor(outputs, name).data] as const);
    return {
      run: async () => {
        const results = await this.session.run(feeds);
        for (const [name, data] of targets) (data as Float32Array).set(results[name]!.data as Float32Array);
      },
      dispose: () => {},
    };
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    void this.session.release();
    this.onDispose();
  }
}
