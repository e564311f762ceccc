import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { complete, post } from "./api.js";
import { Client } from "./stream-client.js";
import { useApp } from "./test-app.js";

describe("a generation that its reader interrupts", () => {
  const small = useApp("mamba2-transformer", { slots: 1, maxWaiting: 1 });

  it("waits for room in a full server instead of being refused half-way, and counts once for each part", async () => {
    const client = await Client.connect(small());
    client.say({ type: "open", stream: 1, window: 20 });
    client.push(1, "slow");
    client.say({ type: "generate", stream: 1, max_tokens: 100, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(20);
    await expect.poll(async () => (await small().engine.stats()).numRunning).toBe(0);

    const blockers = [new AbortController(), new AbortController()];
    const endless = { prompt: "a", max_tokens: 1_000_000, stream: true };
    const answers: Response[] = [];
    for (const { signal } of blockers) answers.push(await post(small(), "/v1/completions", endless, { signal }));
    expect((await post(small(), "/v1/completions", { prompt: "b" })).status).toBe(429);
    const ended = await endedTotal(small().url);
    const acknowledge = () => client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 0 });
    acknowledge();
    client.say({ type: "open", stream: 2 }); // its answer comes behind the acknowledgement
    await client.next("opened", 2);
    client.say({ type: "generate", stream: 2, max_tokens: 1 });
    expect(await client.next("error", 2)).toMatchObject({ error: { code: "overloaded" } }); // has not begun
    await sleep(350); // it has asked again in vain
    expect(client.messages.filter(({ type, stream }) => type === "error" && stream === 1)).toEqual([]);
    expect(await endedTotal(small().url)).toBe(ended);

    for (const blocker of blockers) blocker.abort();
    await Promise.all(answers.map((answer) => answer.text().catch(() => "")));
    await expect
      .poll(() => {
        acknowledge();
        return client.messages.filter(({ type }) => type === "finished").length;
      })
      .toBe(1);
    const body = { prompt: "slow", max_tokens: 100, temperature: 0, return_token_ids: true };
    expect(client.bytesOf(1)).toEqual((await complete(small(), body)).choices[0]!.token_ids);
  });

  it("is cancelled while it waits for room", async () => {
    const client = await Client.connect(small());
    client.say({ type: "open", stream: 1, window: 20 });
    client.push(1, "slow");
    client.say({ type: "generate", stream: 1, max_tokens: 1000, temperature: 0 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThanOrEqual(20);
    await expect.poll(async () => (await small().engine.stats()).numRunning).toBe(0);
    const blockers = [new AbortController(), new AbortController()];
    const endless = { prompt: "a", max_tokens: 1_000_000, stream: true };
    for (const { signal } of blockers) await post(small(), "/v1/completions", endless, { signal });
    client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 0 });
    await sleep(150);
    client.say({ type: "cancel", stream: 1 });
    expect(await client.next("finished", 1)).toMatchObject({
      finish_reason: "cancelled",
      bytes: 4 + client.bytesOf(1).length,
    });
    for (const blocker of blockers) blocker.abort();
    await sleep(50);
    expect(client.messages.filter(({ type }) => type === "finished" || type === "error")).toHaveLength(1);
  });
});

/** Sequences that have ended, however. */
async function endedTotal(url: string): Promise<number> {
  const page = await (await fetch(`${url}/metrics`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith("mblm_requests_total{"));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
