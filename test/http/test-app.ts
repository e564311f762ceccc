import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll } from "vitest";
import { loadConfig } from "../../src/config/load-config.js";
import type { Config } from "../../src/config/schema.js";
import { type App, buildApp } from "../../src/http/build-app.js";
import type { EngineClient, EngineOptions } from "../../src/worker/engine-client-interface.js";
import { startInlineEngine } from "../../src/worker/inline-engine.js";
import { bundleDir } from "../test-bundles.js";

export const DEFAULT_BUNDLE = fileURLToPath(new URL("../../models/books", import.meta.url));
if (!existsSync(DEFAULT_BUNDLE)) throw new Error("models/books is missing");

export interface TestApp extends App {
  /** Of the default model. */
  readonly engine: EngineClient;
  /** Base URL when it listens. */
  readonly url: string;
  stop(): Promise<void>;
}

type Starter = (options: EngineOptions) => Promise<EngineClient>;

/** A real engine on a small bundle behind the real application, on a free port; to be stopped. */
export async function startApp(
  bundle: string,
  settings: Partial<Config> = {},
  start: Starter = startInlineEngine,
): Promise<TestApp> {
  const config = {
    ...loadConfig({ environment: {} }),
    model: bundleDir(bundle),
    logLevel: "silent" as const,
    slots: 4,
    maxEventLoopDelaySeconds: 0, // the engine is in the same thread
    ...settings,
  };
  const startEngine = (dir: string): Promise<EngineClient> =>
    start({
      bundleDir: dir,
      numSlots: config.slots,
      backend: config.backend,
      numThreads: 1,
      maxWaiting: config.maxWaiting,
      maxQueuedPromptBytes: config.maxQueuedPromptBytes,
      prefixCacheBytes: config.prefixCacheBytes,
      verifyChecksums: false,
    });
  const built = await buildApp(config, startEngine, "0.0.0-test");
  await built.models.load();
  const url = await built.server.listen({ host: "127.0.0.1", port: 0 });
  const stop = async (): Promise<void> => {
    await built.models.close();
    await built.server.close();
  };
  return {
    ...built,
    get engine() {
      return built.models.loaded()[0]!.engine;
    },
    url,
    stop,
  };
}

/** As `startApp`; stopped after the file's tests. */
export function useApp(bundle: string, settings: Partial<Config> = {}): () => TestApp {
  let app: TestApp;
  beforeAll(async () => {
    app = await startApp(bundle, settings);
  });
  afterAll(() => app.stop());
  return () => app;
}

export async function postCompletion(app: TestApp, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${app.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
  });
}

/** Waits until the engine holds nothing; fails after five seconds. */
export async function untilIdle(app: TestApp): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const { numRunning, numWaiting } = await app.engine.stats();
    if (numRunning === 0 && numWaiting === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("the engine did not become idle");
}
