import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MblmError } from "../../src/errors.js";
import { startEngine } from "../../src/worker/engine-client.js";
import type { EngineClient, EngineOptions, StartEngineOptions } from "../../src/worker/engine-client-interface.js";
import { startInlineEngine } from "../../src/worker/inline-engine.js";
import { makeRequest } from "../engine/requests.js";
import { bundleDir, readGolden } from "../test-bundles.js";
import { collect, idsOf, never, untilIdle } from "./collect.js";
import { compileThread } from "./compiled-thread.js";

const BUNDLE = "mamba2-transformer";
const options = (changes: Partial<EngineOptions> = {}): EngineOptions => ({
  bundleDir: bundleDir(BUNDLE),
  numSlots: 2,
  device: { kind: "cpu", index: 0, cudaDir: "" },
  backend: "auto",
  numThreads: 1,
  maxWaiting: 3,
  maxQueuedPromptBytes: 1e6,
  prefixCacheBytes: 0,
  verifyChecksums: true,
  ...changes,
});

let threadUrl: URL;
beforeAll(async () => {
  threadUrl = await compileThread();
});

const starters = {
  "in a worker thread": (changes?: Partial<EngineOptions>) => startEngine({ ...options(changes), threadUrl }),
  inline: (changes?: Partial<EngineOptions>) => startInlineEngine(options(changes)),
};

describe.each(Object.entries(starters))("the engine %s", (_, start) => {
  let client: EngineClient;
  /** Keeps a slot busy for as long as a test may need. */
  const long = () => makeRequest({ stop: { maxNewBytes: 1e6 } });
  beforeAll(async () => {
    client = await start();
  });
  afterAll(() => client.close());

  it("tells what it serves", () => {
    expect(client.info).toMatchObject({ vocabularySize: 256, numStages: 2 });
    expect(client.runtime).toEqual({ backend: "c-api", version: "1.30.0", fallbackReason: undefined });
    expect(client.state).toBe("ready");
  });

  it("takes the CPU where a device cannot be used, and says why; unless it must have one", async () => {
    const device = { index: 0, cudaDir: "/nonexistent" };
    const instead = await start({ device: { ...device, kind: "auto" } });
    expect(instead.runtime).toMatchObject({ backend: "c-api" });
    expect(instead.runtime?.fallbackReason).toMatch(/^CUDA is not used: .*install-cuda/);
    await instead.close();
    await expect(start({ device: { ...device, kind: "cuda" } })).rejects.toMatchObject({ code: "runtime_unavailable" });
  });

  it("generates the bytes of the PyTorch model, all prompts at once", async () => {
    const cases = readGolden(BUNDLE)
      .cases.filter(({ greedy }) => greedy.length > 0)
      .slice(0, 4);
    expect(cases.length).toBeGreaterThan(0);
    const outputs = await Promise.all(
      cases.map(({ prompt, greedy }) =>
        collect(client, makeRequest({ prompt: Uint16Array.from(prompt), stop: { maxNewBytes: greedy.length } })),
      ),
    );
    expect(outputs.map(idsOf)).toEqual(cases.map(({ greedy }) => greedy));
    for (const events of outputs) {
      expect(events[0]?.type).toBe("started");
      expect(events.at(-1)).toMatchObject({ type: "finished", reason: "length" });
    }
  });

  it("leaves the caller's prompt as it is", async () => {
    const request = makeRequest();
    await collect(client, request);
    expect(request.prompt).toEqual(Uint16Array.from(Buffer.from("hello")));
  });

  it("carries bias, seed and stops across", async () => {
    const request = makeRequest({
      sampling: { temperature: 1, seed: 2n ** 64n - 1n, logitBias: new Map([[65, 100]]) },
      stop: { maxNewBytes: 20, stopSequences: [Uint8Array.of(65, 65, 65)], minNewBytes: 10 },
      numLogprobs: 1,
    });
    const events = await collect(client, request);
    expect(idsOf(events)).toEqual(new Array(7).fill(65));
    expect(events.at(-1)).toMatchObject({ reason: "stop", matchedStop: Uint8Array.of(65, 65, 65) });
    expect(events.flatMap((e) => (e.type === "bytes" ? (e.logprobs ?? []) : []))).toHaveLength(7);
  });

  it("throws a refusal at the first next(), with its code and field", async () => {
    const request = makeRequest({ prompt: Uint16Array.of(999) });
    await expect(client.submit(request, never)[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      name: "MblmError",
      code: "invalid_request",
      field: "prompt",
    });
    expect(await client.stats()).toMatchObject({ numRunning: 0, numWaiting: 0 });
  });

  it("ends with abort when the signal says so, decoding or waiting", async () => {
    const controller = new AbortController();
    const open = [long(), long(), long()].map((request) => collect(client, request, controller.signal));
    await collectFirstBytes(client, controller);
    for (const events of await Promise.all(open)) expect(events.at(-1)).toMatchObject({ reason: "abort" });
    await untilIdle(client);
  });

  it("ends with abort when the signal was aborted before", async () => {
    const events = await collect(client, long(), AbortSignal.abort());
    expect(events.at(-1)).toMatchObject({ type: "finished", reason: "abort" });
  });

  it("frees the slot when the consumer leaves early, at any event", async () => {
    for (const leaveAt of ["started", "bytes"]) {
      for await (const event of client.submit(long(), never)) if (event.type === leaveAt) break;
      await untilIdle(client);
    }
  });

  it("refuses what the queue cannot hold and recovers", async () => {
    const controller = new AbortController();
    const iterators = Array.from({ length: 5 }, () => client.submit(long(), controller.signal)[Symbol.asyncIterator]());
    for (const iterator of iterators) expect((await iterator.next()).value).toMatchObject({ type: "started" });
    await expect(collect(client, long())).rejects.toMatchObject({ code: "overloaded" });
    const begun = collect(client, makeRequest({ more: { waitsForRoom: true } }));
    controller.abort();
    for (const iterator of iterators) while (!(await iterator.next()).done);
    expect(idsOf(await begun)).toHaveLength(8);
    await untilIdle(client);
    expect(idsOf(await collect(client, makeRequest()))).toHaveLength(8);
  });

  it("has room again when sequences have ended, however late they are read", async () => {
    const iterators = Array.from({ length: 5 }, () => client.submit(makeRequest(), never)[Symbol.asyncIterator]());
    for (const iterator of iterators) expect((await iterator.next()).value).toMatchObject({ type: "started" });
    await untilIdle(client);
    expect(idsOf(await collect(client, makeRequest()))).toHaveLength(8);
    for (const iterator of iterators) {
      let last: unknown;
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) last = next.value;
      expect(last).toMatchObject({ type: "finished" });
    }
  });

  it("fails open requests when it is closed, and refuses later ones", async () => {
    const other = await start();
    const open = collect(other, long());
    for await (const event of other.submit(long(), never)) if (event.type === "bytes") break;
    await Promise.all([other.close(), other.close()]);
    expect((await open).at(-1)).toMatchObject({ type: "failed", code: "shutting_down" });
    expect(other.state).toBe("closed");
    await expect(collect(other, long())).rejects.toMatchObject({ code: "shutting_down" });
    await expect(other.stats()).rejects.toMatchObject({ code: "shutting_down" });
  });

  it("does not start from a directory that is no bundle", async () => {
    await expect(start({ bundleDir: "/nonexistent" })).rejects.toMatchObject({ code: "bundle_invalid" });
  });
});

/** Waits for the first byte of any request, then aborts. */
async function collectFirstBytes(client: EngineClient, controller: AbortController): Promise<void> {
  while ((await client.stats()).generatedBytesTotal === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  controller.abort();
}

describe("a worker thread and this one", () => {
  it("give the same bytes and log-probs", async () => {
    const clients = await Promise.all(Object.values(starters).map((start) => start()));
    const request = makeRequest({
      sampling: { temperature: 0.8, seed: 5n },
      stop: { maxNewBytes: 60 },
      numLogprobs: 3,
    });
    const [threaded, inline] = await Promise.all(clients.map((client) => collect(client, request)));
    const logprobs = (events: typeof threaded) =>
      events?.flatMap((e) => (e.type === "bytes" ? (e.logprobs ?? []) : []));
    expect(idsOf(threaded!)).toEqual(idsOf(inline!));
    expect(logprobs(threaded)).toEqual(logprobs(inline));
    await Promise.all(clients.map((client) => client.close()));
  });
});

describe("a thread that dies", () => {
  const dyingThread = (name: string): StartEngineOptions => ({
    ...options(),
    threadUrl: new URL(`./threads/${name}.mjs`, import.meta.url),
  });

  it.each([
    { how: "by an exception", prompt: "x", message: /so to speak/ },
    { how: "by exiting", prompt: "", message: /exit code 3/ },
  ])("$how fails open requests and says so once", async ({ prompt, message }) => {
    const client = await startEngine(dyingThread("dies-on-submit"));
    const failures: MblmError[] = [];
    client.onFailure((error) => failures.push(error));
    const stats = client.stats().catch((error: unknown) => error);
    await expect(collect(client, makeRequest({ prompt }))).rejects.toMatchObject({
      code: "engine_failed",
      message: expect.stringMatching(message),
    });
    expect(client.state).toBe("failed");
    expect(await stats).toMatchObject({ code: "engine_failed" });
    await expect(collect(client, makeRequest())).rejects.toMatchObject({ code: "engine_failed" });
    client.onFailure((error) => failures.push(error));
    await client.close();
    expect(failures).toHaveLength(2);
    expect(failures[0]).toBe(failures[1]);
  });

  it("while it starts makes the start fail", async () => {
    await expect(startEngine(dyingThread("dies-at-start"))).rejects.toMatchObject({
      code: "engine_failed",
      message: "no such library",
    });
  });
});
