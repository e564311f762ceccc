import { connect, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { makeRandom } from "../engine/requests.js";
import { type Completion, complete, json, post } from "./api.js";
import { readEvents, type SentEvent } from "./sse-events.js";
import { startApp, type TestApp, untilIdle, useApp } from "./test-app.js";

const MODELS = ["mamba2-transformer", "mamba2", "mamba2-transformer-transformer", "gru-mix"];
const MODEL = "mamba2-transformer";
const GREEDY = { temperature: 0, max_tokens: 24 };

const app = useApp(MODEL);
/** A position table ends at 96 bytes. */
const bounded = useApp("transformer");

const random = makeRandom(5);
const bytes = (length: number): Uint8Array<ArrayBuffer> => Uint8Array.from({ length }, () => random(256));

function query(fields: object): string {
  const entries = Object.entries(fields).map(([name, value]) => [
    name,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
  return new URLSearchParams(Object.fromEntries(entries)).toString();
}

type Body = Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;

function upload(target: TestApp, body: Body, fields: object = {}, init: RequestInit = {}): Promise<Response> {
  const more = body instanceof ReadableStream ? { duplex: "half" } : {};
  const asked = { method: "POST", body, ...more, ...init } as RequestInit;
  return fetch(`${target.url}/v1/completions/upload?${query(fields)}`, asked);
}

/** A body that is sent as it is told. */
function sender(): { stream: ReadableStream<Uint8Array>; send(part: Uint8Array): void; end(): void } {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const stream = new ReadableStream<Uint8Array>({
    start(given) {
      controller = given;
    },
  });
  return { stream, send: (part) => controller.enqueue(part), end: () => controller.close() };
}

/** The same bytes in parts of the sizes that come from a function. */
function inParts(content: Uint8Array, next: () => number, pauseMs = 0): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      const size = next();
      controller.enqueue(content.slice(at, at + size));
      at += size;
      if (at >= content.length) controller.close();
    },
  });
}

const idsOf = async (response: Response): Promise<number[]> => {
  const body = await response.json();
  expect(response.status, JSON.stringify(body)).toBe(200);
  return (body as Completion).choices[0]!.token_ids!;
};
const asJson = async (target: TestApp, prompt: Uint8Array, fields: object): Promise<number[]> =>
  (await complete(target, { prompt: [...prompt], return_token_ids: true, ...fields })).choices[0]!.token_ids!;

describe.each(MODELS)("an uploaded prompt of %s", (name) => {
  const own = useApp(name);

  it("gives the bytes of the JSON completion, wherever the body is cut", async () => {
    const prompt = bytes(150);
    const fields = { max_tokens: 30, temperature: 1, top_p: 0.9, seed: 7, repetition_penalty: 1.3 };
    const expected = await asJson(own(), prompt, fields);
    for (let cut = 60; cut < 74; cut++) {
      const body = sender();
      const answer = upload(own(), body.stream, { ...fields, return_token_ids: true });
      body.send(prompt.subarray(0, cut));
      await new Promise((resolve) => setTimeout(resolve, 260)); // longer than the server waits for more
      body.send(prompt.subarray(cut));
      body.end();
      expect(await idsOf(await answer)).toEqual(expected);
    }
  });

  it("gives the same over many pieces of odd sizes", async () => {
    const prompt = bytes(90_001);
    const fields = { ...GREEDY, repetition_penalty: 1.2, cache_salt: "none" };
    const expected = await asJson(own(), prompt, fields);
    const odd = inParts(prompt, () => 1 + random(9973));
    expect(await idsOf(await upload(own(), odd, { ...fields, return_token_ids: true }))).toEqual(expected);
    expect(await idsOf(await upload(own(), prompt, { ...fields, return_token_ids: true }))).toEqual(expected);
  });
});

describe("POST /v1/completions/upload", () => {
  it("answers as a completion does: usage, several choices, log-probs, constraints", async () => {
    const prompt = bytes(70_000);
    const fields = { ...GREEDY, n: 2, seed: 3, temperature: 1, logprobs: 2, stop: "e" };
    const expected = await complete(app(), { prompt: [...prompt], ...fields, return_token_ids: true });
    const answer = await json<Completion>(await upload(app(), prompt, { ...fields, return_token_ids: true }));
    const whole = expected.choices.map(({ prompt_token_ids: _, ...choice }) => choice);
    expect(answer.choices).toEqual(whole);
    expect(answer.usage).toMatchObject({ prompt_tokens: 70_000, completion_tokens: expected.usage!.completion_tokens });
    const constrained = { max_tokens: 20, structured_outputs: { regex: "[0-9]{4}" }, seed: 1 };
    const digits = await json<Completion>(await upload(app(), prompt, constrained));
    expect(digits.choices[0]!.text).toMatch(/^[0-9]{4}$/);
  });

  it("streams events, and bytes with trailers", async () => {
    const prompt = bytes(3000);
    const fields = { ...GREEDY, seed: 3 };
    const expected = await asJson(app(), prompt, fields);
    const events = await readEvents(
      await upload(app(), prompt, { ...fields, return: "events", return_token_ids: true }),
    );
    expect(events.at(-1)!.data).toBe("[DONE]");
    const chunks = events.slice(0, -1).map(({ data }) => JSON.parse(data) as Completion);
    expect(chunks.flatMap(({ choices }) => choices[0]!.token_ids!)).toEqual(expected);
    expect(chunks.filter(({ choices }) => choices[0]!.finish_reason !== null)).toHaveLength(1);
    const raw = await upload(app(), prompt, { ...fields, return: "bytes" });
    expect(raw.headers.get("content-type")).toBe("application/octet-stream");
    expect([...new Uint8Array(await raw.arrayBuffer())]).toEqual(expected);
    const text = await rawExchange(
      app(),
      `POST /v1/completions/upload?${query({ ...fields, return: "bytes" })}`,
      prompt,
    );
    expect(text).toMatch(/\r\nx-finish-reason: length\r\nx-prompt-bytes: 3000\r\nx-generated-bytes: 24\r\n\r\n$/i);
  });

  it("takes an empty prompt", async () => {
    expect(await idsOf(await upload(app(), new Uint8Array(), { ...GREEDY, return_token_ids: true }))).toEqual(
      await asJson(app(), new Uint8Array(), GREEDY),
    );
  });

  it("goes on with a session, and leaves it as it was when the body breaks off", async () => {
    const [first, second] = [bytes(500), bytes(90_000)];
    const whole = Uint8Array.from([...first, ...second]);
    const fields = { ...GREEDY, seed: 1 };
    const expected = await asJson(app(), whole, fields);
    await post(app(), "/v1/sessions", { id: "upload" });
    await complete(app(), { prompt: [...first], max_tokens: 0, session_id: "upload" });
    const broken = sender();
    const controller = new AbortController();
    const options = { signal: controller.signal };
    const lost = upload(app(), broken.stream, { ...fields, session_id: "upload" }, options).catch(() => undefined);
    broken.send(bytes(70_000));
    await expect.poll(() => received(app())).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    controller.abort();
    await lost;
    const read = async (): Promise<number> =>
      (await json<{ bytes: number }>(await fetch(`${app().url}/v1/sessions/upload`))).bytes;
    await untilFree(app(), "upload");
    expect(await read()).toBe(500);
    const answer = await upload(app(), second, { ...fields, session_id: "upload", return_token_ids: true });
    expect(await idsOf(answer)).toEqual(expected);
    expect(await read()).toBe(whole.length + 24);
  });

  it("finds the prompt's beginning in the prefix cache, and leaves it there", async () => {
    const fields = { ...GREEDY, cache_salt: "upload" };
    const prompt = bytes(66_000);
    const first = await json<Completion>(await upload(app(), prompt, fields));
    const again = await json<Completion>(await upload(app(), prompt, fields));
    expect(first.usage!.prompt_tokens_details.cached_tokens).toBe(0);
    expect(again.usage!.prompt_tokens_details.cached_tokens).toBeGreaterThan(65_000);
    expect(again.choices).toEqual(first.choices);
    const other = await json<Completion>(await upload(app(), prompt, { ...fields, cache_salt: "another" }));
    expect(other.usage!.prompt_tokens_details.cached_tokens).toBe(0);
    const asPrompt = await complete(app(), { prompt: [...prompt], ...fields });
    expect(asPrompt.usage!.prompt_tokens_details.cached_tokens).toBeGreaterThan(65_000);
  });

  it.each([
    ["max_tokens", { max_tokens: -1 }],
    ["max_tokens", { max_tokens: "many" }],
    ["max_tokens", { max_tokens: 2 ** 20 + 1 }],
    ["temperature", { temperature: 3 }],
    ["colour", { colour: "red" }],
    ["prompt", { prompt: "a" }],
    ["echo", { echo: true }],
    ["constructor", { constructor: "a" }],
    ["return", { return: "poem" }],
    ["progress", { progress: 1 }],
    ["progress", { progress: 0, return: "events" }],
    ["stream_options", { stream_options: { include_usage: true } }],
    ["n", { n: 2, return: "bytes" }],
    ["logprobs", { logprobs: 1, return: "bytes" }],
    ["return_token_ids", { return_token_ids: true, return: "bytes" }],
    ["model", { model: "other" }],
    ["stop_token_ids", { min_tokens: 1, max_tokens: 2, allowed_token_ids: [5], stop_token_ids: [5] }],
    ["structured_outputs.regex", { structured_outputs: { regex: "(" } }],
    ["max_tokens", { structured_outputs: { regex: "[0-9]{40}" }, max_tokens: 30 }],
  ])("names the field %s before any of the body is read: %j", async (param, fields) => {
    const body = sender();
    body.send(bytes(1)); // and nothing after it
    const response = await upload(app(), body.stream, fields);
    expect(response.status).toBe(param === "model" ? 404 : 400);
    expect((await json(response)).error.param).toBe(param);
    body.end();
  });

  it.each(["/v1/completions/upload", "/v1/score"])("%s refuses the parameter __proto__", async (path) => {
    const response = await fetch(`${app().url}${path}?__proto__=5`, { method: "POST", body: "a" });
    expect([response.status, (await json(response)).error.param]).toEqual([400, "__proto__"]);
  });

  it("refuses a parameter that is given twice", async () => {
    const response = await fetch(`${app().url}/v1/completions/upload?seed=1&seed=2`, { method: "POST", body: "a" });
    expect([response.status, (await json(response)).error.param]).toEqual([400, "seed"]);
  });

  it("takes stops as text, and as JSON of a list", async () => {
    const prompt = new TextEncoder().encode("abc");
    const greedy = await asJson(app(), prompt, { ...GREEDY, max_tokens: 40 });
    const stop = [[greedy[20]!]];
    const expected = await asJson(app(), prompt, { ...GREEDY, max_tokens: 40, stop });
    expect(expected.length).toBeLessThan(40);
    const answer = await upload(app(), prompt, { ...GREEDY, max_tokens: 40, stop, return_token_ids: true });
    expect(await idsOf(answer)).toEqual(expected);
    expect((await upload(app(), prompt, { ...GREEDY, stop: "[not json" })).status).toBe(200);
  });
});

describe("progress", () => {
  it("is told while the prompt arrives, and ends before the first output", async () => {
    const body = sender();
    const fields = { ...GREEDY, return: "events", progress: 0.1 };
    const answer = upload(app(), body.stream, fields);
    body.send(bytes(66_000));
    const response = await answer; // the head comes before the prompt's end
    const reader = response.body!.getReader();
    let text = "";
    const readUntil = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(text)) text += new TextDecoder().decode((await reader.read()).value);
    };
    await readUntil(/"received_bytes":66000,"prefilled_bytes":66000,"total_bytes":null/);
    await untilIdle(app()); // no slot is held
    body.send(bytes(10));
    body.end();
    await readUntil(/\[DONE\]/);
    const events = await readEvents(new Response(text));
    const kinds = events.map(({ event }) => event);
    const last = kinds.lastIndexOf("progress");
    expect(kinds.indexOf(undefined)).toBe(last + 1);
    expect(JSON.parse(events[last]!.data)).toMatchObject({ received_bytes: 66_010, prefilled_bytes: 66_010 });
    const reports = events.slice(0, last + 1).map(({ data }) => JSON.parse(data) as Record<string, number>);
    for (const [i, { received_bytes: got, prefilled_bytes: fed, bytes_per_second: rate }] of reports.entries()) {
      expect(fed).toBeLessThanOrEqual(got!);
      expect(rate).toBeGreaterThanOrEqual(0);
      if (i > 0) expect(fed).toBeGreaterThanOrEqual(reports[i - 1]!.prefilled_bytes!);
    }
    expect(events.filter(({ data }) => data === "[DONE]")).toHaveLength(1);
  });

  it("names the whole length where it is declared", async () => {
    const events = await readEvents(await upload(app(), bytes(100), { ...GREEDY, return: "events", progress: 5 }));
    const reports = events.filter(({ event }) => event === "progress").map(({ data }) => JSON.parse(data));
    expect(reports.at(-1)).toMatchObject({ object: "upload.progress", total_bytes: 100, prefilled_bytes: 100 });
  });

  it("never holds up a client that reads only after it has sent everything", async () => {
    const content = bytes(600_000);
    const path = `POST /v1/completions/upload?${query({ ...GREEDY, return: "events", progress: 0.1 })}`;
    const text = await rawExchange(app(), path, content, true);
    expect(text).toContain('"prefilled_bytes":600000');
    expect(text).toContain("[DONE]");
  });
});

describe("limits", () => {
  it("refuses a body that is declared too large before any of it is sent", async () => {
    const limited = await startApp(MODEL, { maxUploadBytes: 2000 });
    const path = `POST /v1/completions/upload?max_tokens=1`;
    const answered = await expectContinue(limited, path, 2001);
    expect(answered).toMatch(/^HTTP\/1.1 413 /);
    expect(answered).toContain("body: must not be larger than 2000 bytes");
    expect(answered).not.toContain("100 Continue");
    expect(await expectContinue(limited, path, 2000)).toMatch(/^HTTP\/1.1 100 Continue/);
    for (const other of ["/v1/score", "/v1/sessions/s/append"]) {
      await post(limited, "/v1/sessions", { id: "s" });
      const response = await fetch(limited.url + other, { method: "POST", body: bytes(2001) });
      expect([response.status, (await json(response)).error.param]).toEqual([413, "body"]);
      expect((await fetch(limited.url + other, { method: "POST", body: bytes(2000) })).status).toBe(200);
    }
    expect(await received(limited)).toBe(4000);
    await limited.stop();
  });

  it("ends one that becomes too large: with a status before the answer has begun, else with one error event", async () => {
    const limited = await startApp(MODEL, { maxUploadBytes: 100_000 });
    const parts = (): ReadableStream<Uint8Array> => inParts(bytes(200_000), () => 30_000);
    const response = await upload(limited, parts(), GREEDY);
    expect([response.status, (await json(response)).error]).toMatchObject([
      413,
      { code: "body_too_large", param: "body" },
    ]);
    const slowly = inParts(bytes(200_000), () => 20_000, 250);
    const events = await readEvents(await upload(limited, slowly, { ...GREEDY, return: "events", progress: 60 }));
    expectOneError(events, "body_too_large");
    await untilIdle(limited);
    expect((await upload(limited, bytes(100), GREEDY)).status).toBe(200);
    await limited.stop();
  });

  it("gives a sender up that has stopped, not one that is slow", async () => {
    const impatient = await startApp(MODEL, { uploadIdleSeconds: 0.4 });
    const slowly = inParts(bytes(12), () => 1, 100);
    expect((await upload(impatient, slowly, GREEDY)).status).toBe(200);
    const silent = sender();
    silent.send(bytes(1));
    const response = await upload(impatient, silent.stream, GREEDY);
    expect([response.status, (await json(response)).error]).toMatchObject([
      408,
      { code: "idle_timeout", param: "body" },
    ]);
    expect(response.headers.get("x-should-retry")).toBe("false");
    const stopped = sender();
    const answer = upload(impatient, stopped.stream, { ...GREEDY, return: "events", progress: 60 });
    stopped.send(bytes(100));
    expectOneError(await readEvents(await answer), "idle_timeout");
    for (const one of [silent, stopped]) one.end();
    await untilIdle(impatient);
    await impatient.stop();
  });

  it("ends with the time of the request", async () => {
    const body = sender();
    body.send(bytes(1));
    const response = await upload(app(), body.stream, GREEDY, { headers: { "x-request-timeout-ms": "300" } });
    expect([response.status, (await json(response)).error.code]).toEqual([408, "deadline_exceeded"]);
    body.end();
  });

  it("frees everything when the client goes in the middle", async () => {
    const before = await received(app());
    const body = sender();
    const controller = new AbortController();
    const fields = { ...GREEDY, return: "events", progress: 60 };
    const answer = upload(app(), body.stream, fields, { signal: controller.signal });
    body.send(bytes(500_000));
    void (await answer).text().catch(() => {});
    await expect.poll(() => received(app())).toBeGreaterThan(before);
    controller.abort();
    await expect.poll(() => app().lifecycle.numOpen).toBe(0);
    await untilIdle(app());
  });

  it("takes as little memory as a piece and the socket's buffers, however much the client would send", async () => {
    const busy = await startApp(MODEL, { slots: 1 });
    const blocker = new AbortController();
    const endless = { prompt: "a", max_tokens: 1e6 };
    const blocked = post(busy, "/v1/completions", endless, { signal: blocker.signal }).catch(() => undefined);
    await expect.poll(async () => (await busy.engine.stats()).numRunning).toBe(1);
    let numOffered = 0;
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          numOffered += 65_536;
          controller.enqueue(new Uint8Array(65_536));
          if (numOffered >= 64 << 20) controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    const answer = upload(busy, body, GREEDY);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    // One piece waits for a slot, and one buffer of the stream is full: the rest is the client's to keep.
    expect(await received(busy)).toBeLessThanOrEqual(65_536 + 2 * 65_536);
    expect(numOffered).toBeLessThan(32 << 20);
    blocker.abort();
    await blocked;
    await busy.stop();
    await answer.catch(() => undefined);
  });
});

describe("an upload behind which the engine has become full", () => {
  const content = bytes(70_000);
  /** A server whose slot and place in the queue are taken once most of an upload has been fed. */
  const begin = async (isWhole: boolean, init: RequestInit = {}) => {
    const busy = await startApp(MODEL, { slots: 1, maxWaiting: 1 });
    const body = sender();
    const answer = upload(busy, body.stream, { ...GREEDY, return_token_ids: true }, init);
    body.send(content.slice(0, 69_000));
    await expect.poll(async () => (await busy.engine.stats()).promptBytesTotal).toBeGreaterThanOrEqual(69_000);
    await untilIdle(busy);
    const controller = new AbortController();
    const others = ["a", "b"].map((prompt) =>
      post(busy, "/v1/completions", { prompt, max_tokens: 1e6 }, { signal: controller.signal }).catch(() => {}),
    );
    await expect.poll(async () => (await busy.engine.stats()).numWaiting).toBe(1);
    expect((await post(busy, "/v1/completions", { prompt: "c" })).status).toBe(429);
    body.send(content.slice(69_000));
    if (isWhole) body.end();
    await expect.poll(async () => (await busy.engine.stats()).numWaiting).toBe(2);
    const end = async (): Promise<void> => {
      controller.abort();
      await Promise.all(others);
      await busy.stop();
    };
    return { busy, answer, controller, end };
  };

  it("waits in its turn", async () => {
    const { answer, controller, end } = await begin(true);
    controller.abort();
    expect(await idsOf(await answer)).toEqual(await asJson(app(), content, GREEDY));
    await end();
  });

  it("gives its place up at once when its client has gone", async () => {
    const leaving = new AbortController();
    const { busy, answer, end } = await begin(false, { signal: leaving.signal });
    leaving.abort();
    await expect(answer).rejects.toThrow();
    await expect.poll(async () => (await busy.engine.stats()).numWaiting).toBe(1);
    expect((await busy.engine.stats()).numRunning).toBe(1);
    await end();
  });

  it("ends with its time", async () => {
    const { answer, end } = await begin(false, { headers: { "x-request-timeout-ms": "10000" } });
    const response = await answer;
    expect([response.status, (await json(response)).error.code]).toEqual([408, "deadline_exceeded"]);
    await end();
  });

  it("ends with the server's", async () => {
    const { busy, answer, end } = await begin(false);
    await busy.lifecycle.drain(0);
    const response = await answer;
    expect([response.status, (await json(response)).error.code]).toEqual([503, "shutting_down"]);
    await end();
  });
});

describe("the rest of a body that was refused", () => {
  const send = async (socket: Socket, length: number): Promise<void> => {
    const part = Buffer.alloc(1 << 20);
    for (let sent = 0; sent < length && !socket.destroyed; sent += part.length) {
      await new Promise((resolve) => socket.write(part, resolve));
    }
  };
  const begin = (target: TestApp, length: number): Socket => {
    const socket = open(target);
    socket.on("error", () => {});
    socket.write(`POST /v1/completions/upload?max_tokens=-1 HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\n`);
    return socket;
  };

  it("is read and forgotten, so that the connection serves the next request", async () => {
    const socket = begin(app(), 8 << 20);
    await send(socket, 8 << 20); // nothing is read meanwhile
    let text = "";
    socket.setEncoding("latin1").on("data", (data) => (text += data));
    socket.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    await expect.poll(() => text).toMatch(/^HTTP\/1.1 400 .*HTTP\/1.1 200 /s);
    socket.destroy();
  });

  it("is not read without end", async () => {
    const socket = begin(app(), 2 ** 40);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    void send(socket, 1 << 30);
    await closed;
    expect(socket.bytesWritten).toBeLessThan(1 << 30);
  });
});

describe("where a position table ends", () => {
  it("a prompt of known length is refused before it is read", async () => {
    const text = await expectContinue(bounded(), "POST /v1/completions/upload?max_tokens=10", 87);
    expect(text).toMatch(/^HTTP\/1.1 400 /);
    expect(text).toContain("This model holds at most 96 bytes, but the prompt has 87 and max_tokens asks for 10 more.");
    expect((await upload(bounded(), bytes(86), { max_tokens: 10 })).status).toBe(200);
  });

  it("one of unknown length ends with an error that names the bound", async () => {
    const response = await upload(
      bounded(),
      inParts(bytes(97), () => 40),
      { max_tokens: 0 },
    );
    expect([response.status, (await json(response)).error]).toMatchObject([
      400,
      { code: "context_length_exceeded", param: "prompt" },
    ]);
    const slowly = inParts(bytes(97), () => 40, 250);
    const events = await readEvents(await upload(bounded(), slowly, { max_tokens: 0, return: "events", progress: 60 }));
    expectOneError(events, "context_length_exceeded");
    expect(JSON.parse(events.at(-2)!.data).error.message).toContain("at most 96 bytes");
    await untilIdle(bounded());
  });

  it("counts what the session has already", async () => {
    await post(bounded(), "/v1/sessions", { id: "full" });
    await complete(bounded(), { prompt: [...bytes(50)], max_tokens: 0, session_id: "full" });
    const fields = { max_tokens: 6, session_id: "full" };
    expect((await json(await upload(bounded(), bytes(41), fields))).error.message).toContain("the prompt has 91");
    const append = (count: number): Promise<Response> =>
      fetch(`${bounded().url}/v1/sessions/full/append`, { method: "POST", body: bytes(count) });
    expect((await json(await append(47))).error.message).toContain("at most 96 bytes");
    expect((await append(46)).status).toBe(200);
  });

  it("does not end where the first stage is recurrent: far beyond the trained length", async () => {
    const { contextLength, maxLength } = app().engine.info;
    expect(maxLength).toBeUndefined();
    const prompt = bytes(3 * contextLength + 1);
    expect(await idsOf(await upload(app(), prompt, { ...GREEDY, return_token_ids: true }))).toEqual(
      await asJson(app(), prompt, GREEDY),
    );
  });
});

describe("several at once", () => {
  it("uploads do not touch each other, or what else runs", async () => {
    const prompts = [bytes(80_000), bytes(70_001), bytes(10)];
    const fields = { ...GREEDY, seed: 2, temperature: 1 };
    const alone = [];
    for (const prompt of prompts) alone.push(await asJson(app(), prompt, { ...fields, cache_salt: "x" }));
    const together = await Promise.all(
      prompts.map(async (prompt) => {
        const odd = inParts(prompt, () => 1 + random(5000));
        return idsOf(await upload(app(), odd, { ...fields, cache_salt: "y", return_token_ids: true }));
      }),
    );
    expect(together).toEqual(alone);
  });
});

describe("a server that shuts down", () => {
  it("lets uploads come to their end", async () => {
    const ending = await startApp(MODEL);
    const body = sender();
    const answer = upload(ending, body.stream, { ...GREEDY, return: "events", progress: 60 });
    body.send(bytes(1000));
    const response = await answer;
    const drained = ending.lifecycle.drain(10);
    expect((await upload(ending, bytes(5), GREEDY)).status).toBe(503);
    body.send(bytes(1000));
    body.end();
    const events = await readEvents(response);
    expect(events.at(-1)!.data).toBe("[DONE]");
    expect(events.some(({ data }) => data.includes('"error"'))).toBe(false);
    expect(await drained).toBe(0);
    await ending.stop();
  });

  it("ends those that do not with one error, when its time is over", async () => {
    const ending = await startApp(MODEL);
    const bodies = [sender(), sender()];
    const streamed = upload(ending, bodies[0]!.stream, { ...GREEDY, return: "events", progress: 60 });
    const plain = upload(ending, bodies[1]!.stream, GREEDY);
    for (const body of bodies) body.send(bytes(1000));
    const response = await streamed;
    await ending.lifecycle.drain(0.3);
    await ending.stop(); // at once, as the server does
    expectOneError(await readEvents(response), "shutting_down");
    expect([(await plain).status, (await json(await plain)).error.code]).toEqual([503, "shutting_down"]);
  });
});

function expectOneError(events: readonly SentEvent[], code: string): void {
  const errors = events.filter(({ data }) => data.includes('"error"'));
  expect(errors).toHaveLength(1);
  expect(JSON.parse(errors[0]!.data).error.code).toBe(code);
  expect(events.slice(-2).map(({ data }) => data)).toEqual([errors[0]!.data, "[DONE]"]);
}

/** Bytes of streamed bodies that the server has taken, by its own count. */
async function received(target: TestApp): Promise<number> {
  const text = await (await fetch(`${target.url}/metrics`)).text();
  return Number(/^mblm_upload_bytes_total\{.*\} (\d+)$/m.exec(text)![1]);
}

async function untilFree(target: TestApp, session: string): Promise<void> {
  await expect
    .poll(
      async () => (await complete(target, { max_tokens: 0, session_id: session }).catch(() => undefined)) !== undefined,
      {},
    )
    .toBe(true);
}

function open(target: TestApp): Socket {
  const { hostname, port } = new URL(target.url);
  return connect(Number(port), hostname);
}

/** Sends a whole request; reads at once, or only when all has been sent. */
async function rawExchange(target: TestApp, head: string, body: Uint8Array, readsLate = false): Promise<string> {
  const socket = open(target);
  let text = "";
  const ended = new Promise((resolve) => socket.once("close", resolve));
  socket.setEncoding("latin1");
  if (!readsLate) socket.on("data", (data) => (text += data));
  const fields = `host: x\r\nconnection: close\r\nte: trailers\r\ncontent-length: ${body.length}\r\n\r\n`;
  socket.write(`${head} HTTP/1.1\r\n${fields}`);
  await new Promise((resolve) => socket.write(body, resolve));
  if (readsLate) socket.on("data", (data) => (text += data));
  await ended;
  return text.replace(/\r\n0\r\n/, "\r\n");
}

/** The server's first words to a client that asks before it sends a body of this length. */
async function expectContinue(target: TestApp, head: string, length: number): Promise<string> {
  const socket = open(target);
  socket.setEncoding("latin1");
  socket.write(`${head} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: ${length}\r\n\r\n`);
  const text = await new Promise<string>((resolve) => socket.once("data", (data) => resolve(String(data))));
  socket.destroy();
  return text;
}
