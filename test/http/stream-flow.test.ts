import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { complete, json, post } from "./api.js";
import { Client } from "./stream-client.js";
import { type TestApp, untilIdle, useApp } from "./test-app.js";

const generated = async (app: TestApp, body: object): Promise<number[]> =>
  (await complete(app, { ...body, return_token_ids: true })).choices[0]!.token_ids!;

/**
 * Acknowledges what comes until the generation has ended; at no time more than `window` bytes may be unacknowledged.
 *
 * @param before bytes that came on another connection
 */
async function readToEnd(client: Client, window: number, { before = 0, acknowledged = 0 } = {}): Promise<void> {
  let last = acknowledged;
  while (!client.messages.some(({ type, stream }) => type === "finished" && stream === 1)) {
    const bytes = before + client.bytesOf(1).length;
    expect(bytes - last).toBeLessThanOrEqual(window);
    last = bytes;
    client.say({ type: "ack", stream: 1, bytes, messages: 0 });
    await sleep(1);
  }
}

describe("a stream with a window", () => {
  const app = useApp("mamba2-transformer");

  it.each([1, 20, 100])(
    "of %i bytes has no more unacknowledged at any time, and the bytes of one without",
    async (window) => {
      const client = await Client.connect(app());
      client.say({ type: "open", stream: 1, window });
      client.push(1, "slow");
      const options = { max_tokens: 300, temperature: 1.2, seed: 9, stop: "zz" };
      client.say({ type: "generate", stream: 1, ...options });
      await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(window);
      await untilIdle(app());
      await sleep(50); // nothing comes any more
      expect(client.bytesOf(1)).toHaveLength(window);
      await readToEnd(client, window);
      expect(client.bytesOf(1)).toEqual(await generated(app(), { prompt: "slow", ...options }));
      expect(client.messages.filter(({ type }) => type === "finished" || type === "error")).toHaveLength(1);
    },
  );

  it("says the end behind the last bytes, though the engine has come to it before, and closes behind that", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, window: 10 });
    client.say({ type: "generate", stream: 1, max_tokens: 12, temperature: 0 });
    client.say({ type: "close", stream: 1 });
    await expect.poll(() => client.bytesOf(1).length).toBe(10);
    await untilIdle(app());
    await sleep(50);
    expect(client.messages.map(({ type }) => type)).toEqual(["opened"]);
    client.say({ type: "ack", stream: 1, bytes: 11, messages: 0 });
    expect(await client.next("error", 1)).toMatchObject({
      error: { param: "bytes", message: expect.stringContaining("10") },
    });
    client.say({ type: "ack", stream: 1, bytes: 10, messages: 0 });
    await client.next("closed", 1);
    expect(client.messages.map(({ type }) => type)).toEqual(["opened", "error", "finished", "closed"]);
    expect(client.bytesOf(1)).toEqual(await generated(app(), { prompt: "", max_tokens: 12, temperature: 0 }));
  });

  it("that is cancelled says what was made already, within the window, and then the only end", async () => {
    const client = await Client.connect(app());
    client.say({ type: "open", stream: 1, window: 3 });
    client.push(1, "go");
    client.say({ type: "generate", stream: 1, max_tokens: 100_000, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBe(3);
    await untilIdle(app());
    client.say({ type: "cancel", stream: 1 });
    await readToEnd(client, 3);
    const context = [...Buffer.from("go"), ...client.bytesOf(1)];
    expect(client.messages.filter(({ type }) => type === "finished" || type === "error")).toMatchObject([
      { finish_reason: "cancelled", bytes: context.length },
    ]);
    const said = client.bytesOf(1).length;
    client.say({ type: "ack", stream: 1, bytes: said, messages: 1 });
    client.say({ type: "generate", stream: 1, max_tokens: 3, temperature: 0 });
    await client.next("finished", 1, 2);
    expect(client.bytesOf(1).slice(said)).toEqual(
      await generated(app(), { prompt: context, max_tokens: 3, temperature: 0 }),
    );
  });

  it("that is a session loses nothing of what waits when its connection breaks", async () => {
    const { id } = await json<{ id: string }>(await post(app(), "/v1/sessions", {}));
    const generate = { type: "generate", stream: 1, max_tokens: 200, temperature: 1.1, seed: 4 };
    const open = { type: "open", stream: 1, session_id: id, window: 7 };
    const first = await Client.connect(app());
    first.say(open);
    first.push(1, "To be");
    first.say(generate);
    await expect.poll(() => first.bytesOf(1).length).toBe(7);
    await untilIdle(app());
    first.socket.terminate();
    const second = await Client.connect(app());
    second.say({ ...open, take_over: true, received_bytes: 7, received_messages: 0 });
    const opened = await second.next("opened", 1);
    expect(opened.bytes).toBe(5 + opened.said_bytes!);
    expect(opened.frames).toBe(1);
    second.say(generate);
    await readToEnd(second, 7, { before: 7, acknowledged: 7 });
    const { type: _, stream: __, ...options } = generate;
    expect([...first.bytesOf(1), ...second.bytesOf(1)]).toEqual(
      await generated(app(), { prompt: "To be", ...options }),
    );
  });
});

describe("a generation that its reader interrupts", () => {
  const small = useApp("mamba2-transformer", { slots: 1, maxWaiting: 1 });
  const blockers: AbortController[] = [];
  afterEach(() => {
    for (const blocker of blockers.splice(0)) blocker.abort();
  });

  /** Fills slot and queue. */
  async function block(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      const blocker = new AbortController();
      blockers.push(blocker);
      const endless = { prompt: "a", max_tokens: 1_000_000, stream: true };
      await post(small(), "/v1/completions", endless, { signal: blocker.signal });
    }
    expect((await post(small(), "/v1/completions", { prompt: "b" })).status).toBe(429);
  }

  it("waits for room in a full server instead of being refused half-way, and counts once for each part", async () => {
    const client = await Client.connect(small());
    client.say({ type: "open", stream: 1, window: 20 });
    client.push(1, "slow");
    client.say({ type: "generate", stream: 1, max_tokens: 100, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(20);
    await expect.poll(async () => (await small().engine.stats()).numRunning).toBe(0);

    await block();
    const ended = await endedTotal(small().url);
    client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 0 });
    client.say({ type: "open", stream: 2 }); // its answer comes behind the acknowledgement
    await client.next("opened", 2);
    client.say({ type: "generate", stream: 2, max_tokens: 1 });
    expect(await client.next("error", 2)).toMatchObject({ error: { code: "overloaded" } }); // has not begun
    await sleep(100); // it has asked again
    expect(client.messages.filter(({ type, stream }) => type === "error" && stream === 1)).toEqual([]);
    expect(await endedTotal(small().url)).toBe(ended);

    for (const blocker of blockers) blocker.abort();
    await readToEnd(client, 20, { acknowledged: 20 });
    expect(client.bytesOf(1)).toEqual(await generated(small(), { prompt: "slow", max_tokens: 100, temperature: 0 }));
  });

  it("is cancelled while it waits for room", async () => {
    const client = await Client.connect(small());
    client.say({ type: "open", stream: 1, window: 20 });
    client.push(1, "slow");
    client.say({ type: "generate", stream: 1, max_tokens: 1000, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(20);
    await expect.poll(async () => (await small().engine.stats()).numRunning).toBe(0);
    await block();
    client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 0 });
    await sleep(150);
    client.say({ type: "cancel", stream: 1 });
    await readToEnd(client, 20, { acknowledged: 20 });
    expect(client.messages.at(-1)).toMatchObject({ finish_reason: "cancelled", bytes: 4 + client.bytesOf(1).length });
    for (const blocker of blockers) blocker.abort();
    await untilIdle(small());
    expect(client.messages.filter(({ type }) => type === "finished" || type === "error")).toHaveLength(1);
  });
});

/** Sequences that have ended, however. */
async function endedTotal(url: string): Promise<number> {
  const page = await (await fetch(`${url}/metrics`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith("mblm_requests_total{"));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
