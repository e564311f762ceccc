import { describe, expect, it } from "vitest";
import { Engine } from "../../src/engine/engine.js";
import { EngineHost } from "../../src/worker/engine-host.js";
import { decodeEvents } from "../../src/worker/event-codec.js";
import type { EngineMessage } from "../../src/worker/protocol.js";
import { FakeClock } from "../engine/engine-harness.js";
import { FakeRunner, type FakeRunnerOptions } from "../engine/fake-runner.js";
import { makeRequest } from "../engine/requests.js";

function makeHost(options: FakeRunnerOptions = {}) {
  const runner = new FakeRunner(options);
  const messages: EngineMessage[] = [];
  const limits = { maxWaiting: 10, maxQueuedPromptBytes: 1000, prefixCacheBytes: 0 };
  const host: EngineHost = new EngineHost(
    // Time stands still: on a busy machine a turn that takes long hands output out in between.
    (sink) => new Engine(runner, new FakeClock(), limits, sink),
    (message) => messages.push(message),
    () => runner.dispose(),
  );
  return { host, runner, messages };
}

function eventTypes(messages: readonly EngineMessage[]): string[] {
  const types: string[] = [];
  for (const message of messages) {
    if (message.type === "events") decodeEvents(message.events, (_, { type }) => types.push(type));
  }
  return types;
}

describe("EngineHost", () => {
  it("carries the events of all sequences in few messages per turn", async () => {
    const { host, messages } = makeHost({ numSlots: 8, patchLength: 8 });
    for (let key = 0; key < 8; key++)
      host.receive({ type: "submit", key, request: makeRequest({ stop: { maxNewBytes: 800 } }) });
    while (eventTypes(messages).filter((type) => type === "finished").length < 8) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    // 101 turns: one message each, one for the first bytes, one for the ends, and eight `started`.
    expect(messages.length).toBeLessThan(120);
    host.receive({ type: "close" });
    await host.closed;
  });

  it("sees a close between turns, ends what is open and releases the model", async () => {
    const { host, runner, messages } = makeHost();
    host.receive({ type: "submit", key: 1, request: makeRequest({ stop: { maxNewBytes: 1e6 } }) });
    while (!eventTypes(messages).includes("bytes")) await new Promise((resolve) => setImmediate(resolve));
    host.receive({ type: "close" });
    await host.closed;
    expect(eventTypes(messages).at(-1)).toBe("failed");
    expect(messages.at(-1)).toEqual({ type: "closed" });
    expect(runner.isDisposed).toBe(true);
    host.receive({ type: "submit", key: 2, request: makeRequest() });
    expect(messages.at(-1)).toMatchObject({ type: "refused", key: 2, error: { code: "shutting_down" } });
  });

  it("gives up as a whole when the engine itself breaks", async () => {
    const { host, runner, messages } = makeHost();
    runner.reset = () => {
      throw new Error("no memory");
    };
    host.receive({ type: "submit", key: 1, request: makeRequest() });
    await host.closed;
    expect(eventTypes(messages)).toEqual(["started", "failed"]);
    expect(messages.slice(-2)).toMatchObject([
      { type: "failed", error: { code: "engine_failed", message: "no memory" } },
      { type: "closed" },
    ]);
    expect(runner.isDisposed).toBe(true);
  });
});
