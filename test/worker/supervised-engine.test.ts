import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { MblmError } from "../../src/errors.js";
import { startEngine } from "../../src/worker/engine-client.js";
import type { EngineClient, EngineOptions } from "../../src/worker/engine-client-interface.js";
import { SupervisedEngine } from "../../src/worker/supervised-engine.js";
import { makeRequest } from "../engine/requests.js";
import { bundleDir } from "../test-bundles.js";
import { collect, idsOf, never } from "./collect.js";
import { compileThread } from "./compiled-thread.js";

const OPTIONS: EngineOptions = {
  bundleDir: bundleDir("mamba2-transformer"),
  numSlots: 2,
  backend: "auto",
  numThreads: 1,
  maxWaiting: 3,
  maxQueuedPromptBytes: 1e6,
  prefixCacheBytes: 0,
  verifyChecksums: false,
};
const doomed = new URL("threads/dies-on-submit.mjs", import.meta.url);
const missing = new URL("threads/dies-at-start.mjs", import.meta.url);

let thread: URL;
let engine: SupervisedEngine | undefined;
beforeAll(async () => {
  thread = await compileThread();
});
afterEach(() => engine?.close());

/** An engine whose threads are the given ones, one after the other, and good ones from then on. */
async function supervise(...urls: URL[]): Promise<{ failures: string[]; restarts: number[] }> {
  engine = await SupervisedEngine.start(() => startEngine({ ...OPTIONS, threadUrl: urls.shift() ?? thread }));
  const seen = { failures: [] as string[], restarts: [] as number[] };
  engine.onFailure(({ message }) => seen.failures.push(message));
  engine.onRestart((seconds) => seen.restarts.push(seconds));
  return seen;
}

it("is back after its thread died, as it was; until then it refuses", async () => {
  const seen = await supervise(doomed);
  await expect(collect(engine!, makeRequest())).rejects.toMatchObject({ code: "engine_failed" });
  expect(engine!.state).toBe("restarting");
  await expect(engine!.stats()).rejects.toMatchObject({ code: "engine_restarting" });
  await expect(collect(engine!, makeRequest())).rejects.toMatchObject({ code: "engine_restarting" });
  await expect.poll(() => engine!.state).toBe("ready");
  expect(idsOf(await collect(engine!, makeRequest()))).toHaveLength(8);
  expect(engine!.info.id).toBe("mamba2-transformer");
  expect(seen.failures).toEqual([expect.stringContaining("so to speak")]);
  expect(seen.restarts).toHaveLength(1);
});

it("is tried again when it cannot be started", async () => {
  const seen = await supervise(doomed, missing, missing);
  await expect(collect(engine!, makeRequest({ prompt: "" }))).rejects.toMatchObject({ code: "engine_failed" });
  await expect.poll(() => engine!.state).toBe("ready");
  expect(seen.failures).toHaveLength(3);
  expect(idsOf(await collect(engine!, makeRequest()))).toHaveLength(8);
});

it("says at the first start what is wrong", async () => {
  const start = (): Promise<EngineClient> => startEngine({ ...OPTIONS, threadUrl: thread, bundleDir: "nowhere" });
  await expect(SupervisedEngine.start(start)).rejects.toMatchObject({ code: "bundle_invalid" });
});

describe("an engine that is closed after it broke down", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  /** One that has broken down, with the start that follows in the test's hands. */
  async function breakDown() {
    const first = new FakeEngine();
    const again = vi.fn<(resolve: (engine: EngineClient) => void, reject: (error: Error) => void) => void>();
    let isFirst = true;
    engine = await SupervisedEngine.start(async () => {
      if (!isFirst) return new Promise(again);
      isFirst = false;
      return first;
    });
    const told = vi.fn();
    engine.onFailure(told);
    engine.onRestart(told);
    first.breakDown();
    expect(told).toHaveBeenCalledTimes(1);
    return { engine, again, told };
  }

  it("is not started again", async () => {
    const { engine, again, told } = await breakDown();
    await engine.close();
    await vi.advanceTimersByTimeAsync(100_000);
    expect(again).not.toHaveBeenCalled();
    expect(told).toHaveBeenCalledTimes(1);
    expect(engine.state).toBe("closed");
    await expect(engine.submit(makeRequest(), never).next()).rejects.toMatchObject({ code: "shutting_down" });
  });

  it("closes what was being started meanwhile", async () => {
    const { engine, again, told } = await breakDown();
    await vi.advanceTimersByTimeAsync(1000);
    expect(again).toHaveBeenCalledTimes(1);
    await engine.close();
    const late = new FakeEngine();
    const [resolve] = again.mock.calls[0]!;
    resolve(late);
    await vi.advanceTimersByTimeAsync(100_000);
    expect(late.close).toHaveBeenCalledTimes(1);
    expect(again).toHaveBeenCalledTimes(1);
    expect(told).toHaveBeenCalledTimes(1);
    expect(engine.state).toBe("closed");
  });

  it("does not try again when what was being started meanwhile fails", async () => {
    const { engine, again, told } = await breakDown();
    await vi.advanceTimersByTimeAsync(1000);
    await engine.close();
    const [, reject] = again.mock.calls[0]!;
    reject(new Error("it does not start"));
    await vi.advanceTimersByTimeAsync(100_000);
    expect(again).toHaveBeenCalledTimes(1);
    expect(told).toHaveBeenCalledTimes(1);
  });
});

/** Does nothing but break down. */
class FakeEngine implements EngineClient {
  readonly info = {} as EngineClient["info"];
  readonly state = "ready";
  readonly close = vi.fn(async () => {});
  readonly #callbacks: ((error: MblmError) => void)[] = [];

  submit(): never {
    throw new Error("not asked for");
  }

  stats(): never {
    throw new Error("not asked for");
  }

  onFailure(callback: (error: MblmError) => void): void {
    this.#callbacks.push(callback);
  }

  breakDown(): void {
    for (const callback of this.#callbacks) callback(new MblmError("engine_failed", "it broke down"));
  }
}
