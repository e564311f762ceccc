import { createParser } from "eventsource-parser";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { readGolden } from "../test-bundles.js";
import { postCompletion, type TestApp, untilIdle, useApp } from "./test-app.js";

interface Choice {
  text: string;
  index: number;
  finish_reason: string | null;
  token_ids?: number[];
  prompt_token_ids?: number[];
  logprobs: {
    tokens: string[];
    token_logprobs: number[];
    top_logprobs: Record<string, number>[];
    text_offset: number[];
  } | null;
}
interface Body {
  id: string;
  object: string;
  choices: Choice[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
}

const complete = async (app: TestApp, body: object): Promise<Body> =>
  (await postCompletion(app, body)).json() as Promise<Body>;

/** Events of a stream by an independent SSE parser; the last must be [DONE]. */
async function stream(app: TestApp, body: object): Promise<Body[]> {
  const response = await postCompletion(app, { ...body, stream: true });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const data: string[] = [];
  const parser = createParser({ onEvent: (event) => data.push(event.data) });
  parser.feed(await response.text());
  expect(data.pop()).toBe("[DONE]");
  return data.map((text) => JSON.parse(text) as Body);
}

const app = useApp("mamba2-transformer");

describe("POST /v1/completions", () => {
  it("answers greedy requests with PyTorch's bytes", async () => {
    for (const { prompt, greedy, logprobs } of readGolden("mamba2-transformer").cases) {
      const body = { prompt, max_tokens: greedy.length, temperature: 0, logprobs: 0, return_token_ids: true };
      const { choices, usage, object } = await complete(app(), body);
      expect(object).toBe("text_completion");
      expect(choices[0]!.token_ids).toEqual(greedy);
      expect(choices[0]!.prompt_token_ids).toEqual(prompt);
      expect(choices[0]!.finish_reason).toBe("length");
      for (const [i, logprob] of logprobs.entries())
        expect(choices[0]!.logprobs!.token_logprobs[i]).toBeCloseTo(logprob, 3);
      expect(usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: greedy.length });
    }
  });

  it("a stream says what the whole answer says", async () => {
    const body = { prompt: ["one", "two"], n: 2, max_tokens: 50, seed: 11, return_token_ids: true, logprobs: 3 };
    const whole = await complete(app(), body);
    const chunks = await stream(app(), { ...body, stream_options: { include_usage: true } });
    const last = chunks.pop()!;
    expect(last.choices).toEqual([]);
    expect(last.usage).toEqual(whole.usage);
    expect(chunks.every((chunk) => chunk.usage === null)).toBe(true);
    for (const choice of whole.choices) {
      const pieces = chunks.flatMap((chunk) => chunk.choices).filter(({ index }) => index === choice.index);
      expect(pieces.map(({ text }) => text).join("")).toBe(choice.text);
      expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(choice.token_ids);
      expect(pieces.flatMap(({ logprobs }) => logprobs?.token_logprobs ?? [])).toEqual(choice.logprobs!.token_logprobs);
      expect(pieces.flatMap(({ logprobs }) => logprobs?.text_offset ?? [])).toEqual(choice.logprobs!.text_offset);
      expect(pieces.map(({ finish_reason }) => finish_reason).filter(Boolean)).toEqual([choice.finish_reason]);
    }
    expect(new Set(whole.choices.map(({ text }) => text)).size).toBe(4);
  });

  it("the same seed gives the same bytes alone and among others", async () => {
    const body = { prompt: "again", max_tokens: 40, seed: 3, temperature: 1.3, return_token_ids: true, logprobs: 2 };
    const alone = await complete(app(), body);
    const others = Array.from({ length: 12 }, (_, i) =>
      complete(app(), { prompt: "x".repeat(i * 5), max_tokens: 9 + i, seed: i }),
    );
    const among = await complete(app(), body);
    await Promise.all(others);
    expect(among.choices).toEqual(alone.choices);
    const unseeded = await Promise.all([0, 1].map(() => complete(app(), { ...body, seed: null })));
    expect(unseeded[0]!.choices[0]!.token_ids).not.toEqual(unseeded[1]!.choices[0]!.token_ids);
  });

  it("text is the UTF-8 decoding of the bytes, logprobs spell the bytes themselves", async () => {
    const { choices } = await complete(app(), {
      prompt: "é",
      max_tokens: 200,
      temperature: 2,
      seed: 1,
      return_token_ids: true,
      logprobs: 1,
    });
    const { token_ids, text, logprobs } = choices[0]!;
    expect(text).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(token_ids!)));
    expect(text).toContain("\ufffd");
    expect(logprobs!.tokens.join("")).not.toContain("\ufffd");
    expect(logprobs!.tokens[token_ids!.findIndex((id) => id >= 0x80)]).toMatch(/^bytes:\\x[89a-f][0-9a-f]$/);
  });

  it("stop sequences end the output before them, also across chunks", async () => {
    const free = await complete(app(), { prompt: "stop", max_tokens: 60, seed: 2, return_token_ids: true });
    const ids = free.choices[0]!.token_ids!;
    const stop = ids.slice(30, 33);
    const cut = ids.findIndex((_, i) => stop.every((id, k) => ids[i + k] === id));
    for (const includeStop of [false, true]) {
      const body = {
        prompt: "stop",
        max_tokens: 60,
        seed: 2,
        stop: [stop],
        include_stop_str_in_output: includeStop,
        return_token_ids: true,
      };
      const pieces = (await stream(app(), body)).flatMap((chunk) => chunk.choices);
      expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(ids.slice(0, cut + (includeStop ? 3 : 0)));
      expect(pieces.at(-1)!.finish_reason).toBe("stop");
    }
  });

  it("zero bytes and the empty prompt", async () => {
    const none = await complete(app(), { prompt: "abc", max_tokens: 0 });
    expect(none.choices[0]).toMatchObject({ text: "", finish_reason: "length" });
    expect(none.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 0 });
    const empty = await complete(app(), { max_tokens: 4, return_token_ids: true });
    expect(empty.choices[0]!.token_ids).toHaveLength(4);
    expect(empty.usage).toMatchObject({ prompt_tokens: 0 });
  });
});

describe("the official OpenAI client", () => {
  const client = () => new OpenAI({ baseURL: `${app().url}/v1`, apiKey: "none", maxRetries: 0 });

  it("creates, streams and lists", async () => {
    const body = { model: "mamba2-transformer", prompt: "hello", max_tokens: 24, seed: 5 };
    const whole = await client().completions.create(body);
    let text = "";
    for await (const chunk of await client().completions.create({ ...body, stream: true }))
      text += chunk.choices[0]?.text ?? "";
    expect(text).toBe(whole.choices[0]!.text);
    const models = [];
    for await (const model of client().models.list()) models.push(model.id);
    expect(models).toEqual(["mamba2-transformer"]);
    expect((await client().models.retrieve("mamba2-transformer")).id).toBe("mamba2-transformer");
  });

  it("tries again when the server is full", async () => {
    let numCalls = 0;
    const full = new OpenAI({
      baseURL: `${app().url}/v1`,
      apiKey: "none",
      maxRetries: 2,
      fetch: async (url, init) => {
        const refused = { error: { message: "full", type: "rate_limit_error", param: null, code: "overloaded" } };
        if (numCalls++ === 0) return Response.json(refused, { status: 429, headers: { "retry-after": "0" } });
        return fetch(url as string, init as RequestInit);
      },
    });
    const answer = await full.completions.create({ model: "mamba2-transformer", prompt: "a", max_tokens: 3 });
    expect(answer.usage!.completion_tokens).toBe(3);
    expect(numCalls).toBe(2);
  });

  it("reports errors and aborts", async () => {
    await expect(client().completions.create({ model: "nope", prompt: "a" })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
    await expect(
      client().completions.create({ model: "mamba2-transformer", prompt: "a", temperature: 9 }),
    ).rejects.toMatchObject({
      status: 400,
      param: "temperature",
    });
    const endless = await client().completions.create({
      model: "mamba2-transformer",
      prompt: "a",
      max_tokens: 1e6,
      stream: true,
    });
    for await (const _ of endless) break;
    await untilIdle(app());
  });
});

describe("a client that goes away frees its slot", () => {
  const small = useApp("mamba2-transformer", { slots: 1 });
  const cases: [phase: string, body: object][] = [
    ["decoding, streaming", { prompt: "a", max_tokens: 1_000_000, stream: true }],
    ["decoding, not streaming", { prompt: "a", max_tokens: 1_000_000 }],
    ["prefilling", { prompt: Array(2_000_000).fill(65), max_tokens: 5 }],
    ["scoring", { prompt: Array(500_000).fill(65), max_tokens: 0, echo: true, logprobs: 0 }],
    ["prefilling for several choices", { prompt: Array(2_000_000).fill(65), max_tokens: 5, n: 4 }],
    ["constrained", { prompt: "a", max_tokens: 1_000_000, min_tokens: 1_000_000, utf8: true, stream: true }],
  ];

  it.each(cases)("%s", async (_, body) => {
    const controller = new AbortController();
    const pending = postCompletion(small(), body, { signal: controller.signal }).then((r) => r.text());
    await expect.poll(async () => (await small().engine.stats()).numRunning).toBe(1);
    controller.abort();
    await expect(pending).rejects.toThrow();
    await untilIdle(small());
  });

  it("queued", async () => {
    const controllers = [new AbortController(), new AbortController()];
    const pending = controllers.map((controller) =>
      postCompletion(small(), { prompt: "a", max_tokens: 1_000_000 }, { signal: controller.signal }).then((r) =>
        r.text(),
      ),
    );
    await expect.poll(async () => (await small().engine.stats()).numWaiting).toBe(1);
    for (const controller of controllers.reverse()) controller.abort();
    await Promise.allSettled(pending);
    await untilIdle(small());
  });
});

describe("overload and shutdown", () => {
  const tight = useApp("mamba2-transformer", { slots: 1, maxWaiting: 0 });

  it("answers 429 with Retry-After while the queue is full, then 503 while draining", async () => {
    const controller = new AbortController();
    const running = postCompletion(
      tight(),
      { prompt: "a", max_tokens: 1_000_000, stream: true },
      { signal: controller.signal },
    );
    await expect.poll(async () => (await tight().engine.stats()).numRunning).toBe(1);
    const refused = await postCompletion(tight(), { prompt: "b" });
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await refused.json()).toMatchObject({ error: { code: "overloaded" } });

    expect((await fetch(`${tight().url}/health`)).status).toBe(200);
    expect(await tight().lifecycle.drain(0.05)).toBe(1);
    expect((await fetch(`${tight().url}/health`)).status).toBe(503);
    expect((await postCompletion(tight(), { prompt: "c" })).status).toBe(503);

    // What is cut off hears why: an error event, then [DONE].
    await tight().engine.close();
    const text = await (await running).text();
    expect(text).toContain('"code":"shutting_down"');
    expect(text.trimEnd().endsWith("data: [DONE]")).toBe(true);
    controller.abort();
  });
});
