import { afterEach, beforeAll, expect, it } from "vitest";
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

it("stays closed when it is closed while it is started again", async () => {
  await supervise(doomed);
  await expect(collect(engine!, makeRequest())).rejects.toThrow();
  await engine!.close();
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(engine!.state).toBe("closed");
  await expect(engine!.submit(makeRequest(), never).next()).rejects.toMatchObject({ code: "shutting_down" });
});
