import { describe, expect, it } from "vitest";
import { readGolden } from "../test-bundles.js";
import { complete, json, post } from "./api.js";
import { startApp, type TestApp, untilIdle, useApp } from "./test-app.js";

interface Summary {
  object: string;
  bytes: number;
  bits_per_byte: number;
  total_logprob: number;
  mean_entropy?: number;
}

const app = useApp("mamba2-transformer");
const bounded = useApp("transformer");

function score(
  target: TestApp,
  bytes: NonNullable<RequestInit["body"]>,
  query = "",
  init: RequestInit = {},
): Promise<Response> {
  return fetch(`${target.url}/v1/score${query}`, { method: "POST", body: bytes, ...init });
}

async function lines(response: Response): Promise<[numbers: number[], summary: Summary]> {
  expect(response.headers.get("content-type")).toBe("application/x-ndjson");
  const parsed = (await response.text())
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const summary = parsed.pop();
  const numbers: number[] = [];
  for (const { offset, logprobs, entropy } of parsed) {
    expect(offset).toBe(numbers.length);
    numbers.push(...(logprobs ?? entropy));
  }
  return [numbers, summary];
}

const load = async (): Promise<number> =>
  (await json<{ server_load: number }>(await fetch(`${app().url}/load`))).server_load;

const random = (length: number): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, i) => (Math.imul(i + 7, 0x9e3779b1) >>> 13) & 0xff);

describe("a server that shuts down", () => {
  it.each(["/v1/score", "/v1/score?return=logprobs", "/v1/sessions/s/append"])(
    "ends what waits for a slot: %s",
    async (path) => {
      const ending = await startApp("mamba2-transformer", { slots: 1 });
      await post(ending, "/v1/sessions", { id: "s" });
      const running = post(ending, "/v1/completions", { prompt: "a", max_tokens: 1e6 });
      await expect.poll(async () => (await ending.engine.stats()).numRunning).toBe(1);
      const waiting = fetch(ending.url + path, { method: "POST", body: random(100) });
      await expect.poll(async () => (await ending.engine.stats()).numWaiting).toBe(1);
      await ending.lifecycle.drain(0);
      const response = await waiting;
      expect([response.status, (await json(response)).error.code]).toEqual([503, "shutting_down"]);
      await ending.stop();
      expect((await running).status).toBe(503);
    },
  );
});

describe("POST /v1/score", () => {
  it("gives PyTorch's log-prob of every byte, the first included", async () => {
    const { ids, logprobs } = readGolden("mamba2-transformer").scored;
    const [numbers, summary] = await lines(await score(app(), Uint8Array.from(ids), "?return=logprobs"));
    expect(numbers).toHaveLength(ids.length);
    for (const [i, logprob] of logprobs.entries()) expect(Math.abs(numbers[i]! - logprob)).toBeLessThanOrEqual(1e-4);
    const total = numbers.reduce((sum, x) => sum + x, 0);
    expect(summary).toMatchObject({ object: "score", bytes: ids.length });
    expect(summary.total_logprob).toBeCloseTo(total, 9);
    expect(summary.bits_per_byte).toBeCloseTo(-total / ids.length / Math.LN2, 9);
  });

  it("agrees with echo bit for bit, over pieces, text and any content type", async () => {
    const bytes = random(70_001); // more than one piece
    const [numbers, summary] = await lines(await score(app(), bytes, "?return=logprobs"));
    expect(numbers).toHaveLength(bytes.length);
    const prompt = [...bytes.subarray(0, 3000)];
    const echoed = await complete(app(), { prompt, max_tokens: 0, echo: true, logprobs: 0 });
    expect(numbers.slice(1, 3000)).toEqual(echoed.choices[0]!.logprobs!.token_logprobs.slice(1));
    const tail = await complete(app(), { prompt: [...bytes], max_tokens: 0, prompt_logprobs: 0 });
    const last = tail.choices[0]!.prompt_logprobs!.slice(65_530).map((entry, i) => entry![bytes[65_530 + i]!]!.logprob);
    expect(numbers.slice(65_530)).toEqual(last);
    for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded", "image/png"]) {
      const answer = await score(app(), bytes.slice(0, 100), "", { headers: { "content-type": type } });
      expect(((await answer.json()) as Summary).bytes).toBe(100);
    }
    expect(summary.bytes).toBe(70_001);
  });

  it("entropies are those of the distributions", async () => {
    const [entropies, summary] = await lines(await score(app(), "hello there", "?return=entropy"));
    expect(entropies).toHaveLength(11);
    for (const entropy of entropies) expect(entropy).toBeGreaterThan(0);
    for (const entropy of entropies) expect(entropy).toBeLessThanOrEqual(Math.log(256) + 1e-9);
    const mean = entropies.reduce((sum, x) => sum + x, 0) / 11 / Math.LN2;
    expect(summary.mean_entropy).toBeCloseTo(mean, 9);
  });

  it("reads a body that is streamed in odd pieces", async () => {
    const bytes = random(5000);
    const body = new ReadableStream({
      async start(controller) {
        for (let start = 0, size = 1; start < bytes.length; start += size, size = (size * 3) % 701) {
          controller.enqueue(bytes.subarray(start, start + size));
          if (start % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        }
        controller.close();
      },
    });
    const streamed = (await (await score(app(), body, "", { duplex: "half" } as RequestInit)).json()) as Summary;
    const whole = (await (await score(app(), bytes)).json()) as Summary;
    expect(streamed.total_logprob).toBe(whole.total_logprob);
  });

  it("a body above the limit of JSON bodies is taken, and no slot is held while the sender pauses", async () => {
    let send!: (bytes: Uint8Array) => void;
    let end!: () => void;
    const body = new ReadableStream({
      start(controller) {
        send = (bytes) => controller.enqueue(bytes);
        end = () => controller.close();
      },
    });
    const answer = score(app(), body, "?return=logprobs", { duplex: "half" } as RequestInit);
    send(random(66_000));
    await expect.poll(async () => await load()).toBe(1);
    await untilIdle(app()); // one piece is scored, the rest of the bytes waits for more
    send(random(10));
    end();
    const [numbers] = await lines(await answer);
    expect(numbers).toHaveLength(66_010);
  });

  it.each([
    ["an empty body", "", "", 400, "body"],
    ["an unknown form", "a", "?return=poem", 400, "return"],
    ["an unknown parameter", "a", "?colour=red", 400, "colour"],
    ["another model", "a", "?model=other", 404, "model"],
  ])("refuses %s", async (_, body, query, status, param) => {
    for (const form of ["", "&return=logprobs"]) {
      const separator = query === "" ? "?" : "";
      const response = await score(app(), body, form === "" || query !== "" ? query : separator + form.slice(1));
      expect(response.status).toBe(status);
      expect(await response.json()).toMatchObject({ error: { param } });
    }
  });

  it("refuses more than a bounded model holds, without keeping anything", async () => {
    expect((await score(bounded(), random(96))).status).toBe(200);
    const response = await score(bounded(), random(97));
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: "context_length_exceeded" } });
    await untilIdle(bounded());
  });

  it("stops when the client goes away", async () => {
    const controller = new AbortController();
    const pending = score(app(), random(500_000), "?return=logprobs", { signal: controller.signal });
    await expect.poll(async () => (await app().engine.stats()).numRunning).toBe(1);
    controller.abort();
    await pending.then((response) => response.text()).catch(() => {});
    await untilIdle(app());
    await expect.poll(async () => await load()).toBe(0);
  });

  it("counts the bytes", async () => {
    const read = async (): Promise<number> => {
      const text = await (await fetch(`${app().url}/metrics`)).text();
      return Number(/^mblm_scored_bytes_total{.*} (\d+)$/m.exec(text)![1]);
    };
    const before = await read();
    await (await score(app(), random(123))).json();
    expect((await read()) - before).toBe(123);
  });
});
