import { summarizeBundle } from "../../src/bundle/bundle.js";
import { loadConfig } from "../../src/config/load-config.js";
import type { Config } from "../../src/config/schema.js";
import { systemClock } from "../../src/core/clock.js";
import { ModelRegistry } from "../../src/http/models/model-registry.js";
import type { ServingOptions } from "../../src/http/models/served-model.js";
import { ServerMetrics } from "../../src/metrics/server-metrics.js";
import type { EngineClient } from "../../src/worker/engine-client-interface.js";
import { bundleDir } from "../test-bundles.js";

/** A load that has begun. */
interface Load {
  readonly name: string;
  readonly resolve: (engine: EngineClient) => void;
  readonly reject: (error: Error) => void;
}

/** A registry of real bundles. Their engines do nothing, and are there when the test says so. */
export class FakeModels {
  private constructor(
    readonly registry: ModelRegistry,
    readonly options: ServingOptions,
    private readonly begun: Load[],
  ) {}

  static async open(names: readonly string[], settings: Partial<Config> = {}): Promise<FakeModels> {
    const config = { ...loadConfig({ environment: {} }), slots: 2, prefixCacheBytes: 0, ...settings };
    const sessions = { numSessions: 0, numInMemory: 0, memoryBytes: 0, storedBytes: undefined, isUp: true };
    const metrics = new ServerMetrics(
      "test",
      async () => [],
      async () => sessions,
      false,
    );
    const options = { config, metrics, clock: systemClock, version: "test" };
    const begun: Load[] = [];
    const start = (dir: string): Promise<EngineClient> => {
      const name = names.find((each) => bundleDir(each) === dir)!;
      return new Promise((resolve, reject) => begun.push({ name, resolve, reject }));
    };
    const registry = await ModelRegistry.open(names.map(bundleDir), start, options, (error) => {
      throw error;
    });
    return new FakeModels(registry, options, begun);
  }

  /** Ends the load that is under way, of this model, and lets everything go on that waits for nothing else. */
  async finish(name: string, failure?: Error): Promise<EngineClient> {
    await untilRead(() => this.begun.length > 0);
    const [load] = this.begun.splice(0, 1);
    if (load?.name !== name) throw new Error(`what is being loaded is ${load?.name}, not ${name}`);
    const engine = await fakeEngine(name);
    if (failure === undefined) load.resolve(engine);
    else load.reject(failure);
    await settled();
    return engine;
  }
}

async function fakeEngine(name: string): Promise<EngineClient> {
  const { info } = await summarizeBundle(bundleDir(name));
  let isClosed = false;
  return {
    info,
    get state() {
      return isClosed ? ("closed" as const) : ("ready" as const);
    },
    async *submit() {},
    stats: () => Promise.reject(new Error("not asked for")),
    onFailure: () => {},
    close: async () => {
      isClosed = true;
    },
  };
}

/** A load for the second time reads the manifest before. */
async function untilRead(hasBegun: () => boolean): Promise<void> {
  for (let tries = 0; !hasBegun() && tries < 1000; tries++) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Resolves when everything that waits for nothing else has gone on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
