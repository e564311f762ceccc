import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { type CollectedSpan, Collector, ERROR } from "../tracing/collector.js";
import { complete, post } from "./api.js";
import { logLines } from "./log-lines.js";
import { startApp, type TestApp, untilIdle } from "./test-app.js";

const MODEL = "mamba2-transformer";
const apps: TestApp[] = [];
let collector: Collector;
beforeAll(async () => {
  collector = await Collector.start();
});
afterEach(async () => {
  for (const app of apps.splice(0)) await app.stop();
  collector.spans.length = 0;
  collector.status = 200;
});
afterAll(() => collector.stop());

async function start(settings = {}): Promise<TestApp> {
  const app = await startApp(MODEL, { otlpEndpoint: collector.url, ...settings });
  apps.push(app);
  return app;
}

/** Stops the application, which sends every span; returns the one of a route. */
async function finish(app: TestApp, name: string): Promise<CollectedSpan> {
  apps.splice(apps.indexOf(app), 1);
  await app.stop();
  const spans = collector.named(name);
  expect(spans).toHaveLength(1);
  return spans[0]!;
}

describe("traces", () => {
  it("has one tree per request, whose phases follow each other within it", async () => {
    const app = await start();
    const answer = await complete(app, { prompt: "x".repeat(600), max_tokens: 20, n: 2, seed: 1, temperature: 0.5 });
    const root = await finish(app, "POST /v1/completions");
    const sequence = [`text_completion ${app.engine.info.id}`, ["queue"], ["prefill"], ["decode"]];
    expect(collector.tree(root)).toEqual(["POST /v1/completions", sequence, sequence]);
    expect(root.kind).toBe(2);
    expect(root.parentSpanId).toBeUndefined();
    expect(root.attributes).toMatchObject({
      "http.request.method": "POST",
      "http.route": "/v1/completions",
      "url.path": "/v1/completions",
      "url.scheme": "http",
      "http.response.status_code": 200,
      "client.address": "127.0.0.1",
    });
    const [first] = collector.named(sequence[0] as string);
    expect(first!.attributes).toMatchObject({
      "gen_ai.operation.name": "text_completion",
      "gen_ai.provider.name": "mblm-server",
      "gen_ai.request.model": app.engine.info.id,
      "gen_ai.response.id": expect.stringContaining(answer.id),
      "gen_ai.request.max_tokens": 20,
      "gen_ai.request.temperature": 0.5,
      "gen_ai.usage.input_tokens": 600,
      "gen_ai.usage.output_tokens": 20,
      "gen_ai.response.finish_reasons": ["length"],
    });
    // The phases are those that the engine measured, one after the other, without gaps.
    const spans = collector.spans.filter(({ traceId }) => traceId === root.traceId);
    expect(spans).toHaveLength(9);
    const byId = new Map(spans.map((span) => [span.spanId, span]));
    for (const span of spans) {
      expect(span.end).toBeGreaterThanOrEqual(span.start);
      const parent = byId.get(span.parentSpanId ?? "");
      if (parent === undefined) continue;
      expect(span.start).toBeGreaterThanOrEqual(parent.start);
      expect(span.end).toBeLessThanOrEqual(parent.end);
    }
    const phases = ["queue", "prefill", "decode"].map((name) =>
      spans.find((span) => span.name === name && span.parentSpanId === first!.spanId),
    );
    expect(phases[1]!.start).toBe(phases[0]!.end);
    expect(phases[2]!.start).toBe(phases[1]!.end);
    const chunks = collector.named("prefill").map(({ attributes }) => attributes["mblm.prefill.chunks"] as number);
    expect(Math.max(...chunks)).toBeGreaterThan(0); // who copies the first one's state feeds nothing
  });

  it("is part of the caller's trace, and log lines and headers name it", async () => {
    const app = await start({ logLevel: "info" });
    const lines = logLines(app);
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const headers = {
      "content-type": "application/json",
      traceparent: `00-${traceId}-b7ad6b7169203331-01`,
      "x-request-id": "from-the-client",
    };
    const answer = await post(app, "/v1/completions", { prompt: "x", max_tokens: 3 }, { headers });
    expect(answer.headers.get("x-request-id")).toBe("from-the-client");
    await answer.text();
    const root = await finish(app, "POST /v1/completions");
    expect(root).toMatchObject({ traceId, parentSpanId: "b7ad6b7169203331" });
    expect(root.attributes["mblm.request.id"]).toBe("from-the-client");
    const own = lines.map((line) => JSON.parse(line)).filter(({ reqId }) => reqId === "from-the-client");
    expect(own.length).toBeGreaterThanOrEqual(2);
    for (const line of own) expect(line).toMatchObject({ trace_id: traceId, span_id: root.spanId });
  });

  it("leaves out probes and scrapes, and nothing else", async () => {
    const app = await start();
    const paths = [
      "/health",
      "/v2/health/live",
      "/v2/health/ready",
      "/metrics",
      "/metrics?x=1",
      "/healthy",
      "/version",
    ];
    for (const path of paths) await (await fetch(`${app.url}${path}`)).text();
    await finish(app, "GET /version");
    expect(collector.spans.map(({ attributes }) => attributes["url.path"])).toEqual(["/healthy", "/version"]);
  });

  it("makes an id of a malformed one, and leaves out what is not sampled", async () => {
    const app = await start();
    const headers = {
      "x-request-id": "not well formed!",
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    };
    const answer = await fetch(`${app.url}/version`, { headers });
    expect(answer.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    await answer.text();
    await (await fetch(`${app.url}/v1/models`, { headers: { traceparent: "nonsense" } })).text();
    await finish(app, "GET /v1/models");
    expect(collector.named("GET /version")).toEqual([]);
  });

  it("ends the spans of refused, unknown and aborted requests with their outcome", async () => {
    const app = await start({ slots: 1, maxWaiting: 2 });
    expect((await post(app, "/v1/completions", { prompt: "x", top_p: 7 })).status).toBe(400);
    expect((await fetch(`${app.url}/nowhere?a=1`)).status).toBe(404);
    const leaving = new AbortController();
    const body = { prompt: "x", max_tokens: 1_000_000, stream: true };
    const running = await post(app, "/v1/completions", body, { signal: leaving.signal });
    await running.body!.getReader().read();
    const waiting = post(app, "/v1/completions", body, { signal: leaving.signal }).catch(() => {});
    await expect.poll(async () => (await app.engine.stats()).numWaiting).toBe(1);
    // There is a place for one of them.
    expect((await post(app, "/v1/completions", { prompt: "x", n: 2 })).status).toBe(429);
    leaving.abort();
    await waiting;
    await untilIdle(app);
    const missing = await finish(app, "GET");
    expect(missing.attributes).toMatchObject({ "http.response.status_code": 404, "url.path": "/nowhere" });
    const roots = collector.named("POST /v1/completions");
    const outcomes = roots.map(({ status, attributes }) => [
      attributes["http.response.status_code"],
      attributes["error.type"],
      status,
    ]);
    expect(outcomes).toHaveLength(4);
    expect(outcomes).toContainEqual([400, undefined, 0]);
    expect(outcomes.filter(([, error]) => error === "client_disconnected")).toEqual([
      [200, "client_disconnected", ERROR],
      [200, "client_disconnected", ERROR],
    ]);
    const sequences = collector.named(`text_completion ${app.engine.info.id}`);
    expect(sequences.map(({ status }) => status)).toEqual([ERROR, ERROR, ERROR, ERROR]);
    const errors = sequences.map(({ attributes }) => attributes["error.type"]);
    expect(errors.sort()).toEqual(["aborted", "aborted", "aborted", "overloaded"]);
    // One ran when its reader left, the other one's wait is told by the engine.
    const numGenerated = sequences.map(({ attributes }) => attributes["gen_ai.usage.output_tokens"] ?? 0) as number[];
    expect(Math.max(...numGenerated)).toBeGreaterThan(0);
    expect(collector.named("queue")).toHaveLength(1);
  });

  it("ends the spans of what fails after its beginning", async () => {
    const app = await start();
    const running = await post(app, "/v1/completions", { prompt: "x", max_tokens: 1_000_000, stream: true });
    const reader = running.body!.getReader();
    await reader.read();
    await app.engine.close();
    while (!(await reader.read()).done);
    const root = await finish(app, "POST /v1/completions");
    expect(root.status).toBe(ERROR);
    expect(root.attributes["http.response.status_code"]).toBe(200);
    const [sequence] = collector.named(`text_completion ${app.engine.info.id}`);
    expect(sequence).toMatchObject({ status: ERROR, parentSpanId: root.spanId });
    expect(sequence!.attributes).toMatchObject({
      "error.type": "shutting_down",
      "gen_ai.response.finish_reasons": ["error"],
    });
  });

  it("tells what ran out of time from what failed", async () => {
    const app = await start();
    const headers = { "content-type": "application/json", "x-request-timeout-ms": "300" };
    const body = { prompt: "x", max_tokens: 1_000_000 };
    expect((await post(app, "/v1/completions", body, { headers })).status).toBe(408);
    const root = await finish(app, "POST /v1/completions");
    expect([root.status, root.attributes["http.response.status_code"]]).toEqual([0, 408]);
    const [sequence] = collector.named(`text_completion ${app.engine.info.id}`);
    expect(sequence).toMatchObject({ status: ERROR, parentSpanId: root.spanId });
    expect(sequence!.attributes).toMatchObject({
      "error.type": "deadline_exceeded",
      "gen_ai.response.finish_reasons": ["timeout"],
    });
  });

  it("makes a linked tree of each generation on a WebSocket", async () => {
    const app = await start();
    const socket = new WebSocket(`${app.url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1");
    const finished = new Promise<void>((resolve) => {
      let count = 0;
      socket.on("message", (data, isBinary) => {
        if (!isBinary && JSON.parse(String(data)).type === "finished" && ++count === 2) resolve();
      });
    });
    await new Promise((resolve) => socket.once("open", resolve));
    socket.send(JSON.stringify({ type: "open", stream: 1 }));
    for (const max_tokens of [3, 5]) socket.send(JSON.stringify({ type: "generate", stream: 1, max_tokens }));
    await finished;
    socket.terminate();
    const root = await finish(app, "GET /v1/stream");
    expect(root.attributes["http.response.status_code"]).toBe(101);
    const generations = collector.named(`text_completion ${app.engine.info.id}`);
    expect(generations.map(({ attributes }) => attributes["gen_ai.usage.output_tokens"])).toEqual([3, 5]);
    for (const span of generations) {
      expect(span.parentSpanId).toBeUndefined();
      expect(span.links).toMatchObject([{ traceId: root.traceId, spanId: root.spanId }]);
      expect(collector.tree(span).slice(1)).toEqual([["queue"], ["prefill"], ["decode"]]);
    }
    expect(new Set(collector.spans.map(({ traceId }) => traceId)).size).toBe(3);
  });

  it("bounds the spans of a request that is made of very many sequences", async () => {
    const app = await start({ maxBatchPrompts: 200 });
    const prompt = Array.from({ length: 150 }, () => "a");
    const answer = await complete(app, { prompt, max_tokens: 1 });
    expect(answer.choices).toHaveLength(150);
    const root = await finish(app, "POST /v1/completions");
    expect(collector.named(`text_completion ${app.engine.info.id}`)).toHaveLength(128);
    expect(root.attributes["mblm.sequences"]).toBe(150);
  });

  it("says so when the collector takes nothing, and serves all the same", async () => {
    collector.status = 400;
    const app = await start({ logLevel: "warn" });
    const lines = logLines(app);
    await complete(app, { prompt: "x", max_tokens: 2 });
    apps.pop();
    await app.stop();
    expect(lines.filter((line) => line.includes('"msg":"tracing"'))).toHaveLength(1);
  });

  it("names the service as the environment says", async () => {
    process.env.OTEL_SERVICE_NAME = "books-in-production";
    process.env.OTEL_RESOURCE_ATTRIBUTES = "deployment.environment.name=staging";
    try {
      const app = await start();
      await (await fetch(`${app.url}/version`)).text();
      await finish(app, "GET /version");
    } finally {
      delete process.env.OTEL_SERVICE_NAME;
      delete process.env.OTEL_RESOURCE_ATTRIBUTES;
    }
    expect(collector.resources.at(-1)).toMatchObject({
      "service.name": "books-in-production",
      "service.version": "0.0.0-test",
      "deployment.environment.name": "staging",
    });
  });
});

describe("prompts and outputs", () => {
  const MARKER = "Rumpelstiltskin";
  const LEVELS = ["fatal", "error", "warn", "info", "debug"] as const;

  /** Sends the marker in every way that a prompt can come in, well-formed or not. */
  async function sendEverywhere(app: TestApp): Promise<string> {
    const generated = await complete(app, { prompt: MARKER, max_tokens: 12, temperature: 0, return_token_ids: true });
    const bodies: [path: string, body: unknown][] = [
      ["/v1/completions", { prompt: [MARKER, MARKER], stream: true, max_tokens: 4, echo: true, logprobs: 1 }],
      ["/v1/completions", { prompt: MARKER, top_p: 7 }],
      ["/v1/completions", { prompt: MARKER, model: "another" }],
      ["/v1/completions", { prompt: "x", structured_outputs: { regex: `(${MARKER}` } }],
      ["/v1/chat/completions", { messages: [{ role: "user", content: MARKER }] }],
      ["/tokenize", { prompt: MARKER }],
      ["/v1/sessions", { id: "kept" }],
      ["/v1/completions", { prompt: MARKER, session_id: "kept", max_tokens: 2 }],
    ];
    for (const [path, body] of bodies) await (await post(app, path, body)).text();
    const raw = { method: "POST", body: `{"prompt": ${MARKER}`, headers: { "content-type": "application/json" } };
    expect((await fetch(`${app.url}/v1/completions`, raw)).status).toBe(400);
    await (await fetch(`${app.url}/v1/score`, { method: "POST", body: MARKER })).text();
    await (await fetch(`${app.url}/v1/sessions/kept/append`, { method: "POST", body: MARKER })).text();
    const socket = new WebSocket(`${app.url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1");
    await new Promise((resolve) => socket.once("open", resolve));
    const finished = new Promise<void>((resolve) => {
      socket.on("message", (data, isBinary) => {
        if (!isBinary && JSON.parse(String(data)).type === "finished") resolve();
      });
    });
    socket.send(JSON.stringify({ type: "open", stream: 1 }));
    socket.send(Buffer.concat([Buffer.from([1, 0, 0, 0]), Buffer.from(MARKER)]));
    socket.send(`{"type": "${MARKER}"`);
    socket.send(JSON.stringify({ type: "generate", stream: 1, max_tokens: 3 }));
    await finished;
    socket.terminate();
    return generated.choices[0]!.text;
  }

  it.each(LEVELS)("are in no log line at level %s and in no span", async (logLevel) => {
    const app = await start({ logLevel });
    const lines = logLines(app);
    collector.bodies.length = 0;
    await sendEverywhere(app);
    await finish(app, "POST /v1/score");
    expect(lines.length > 0).toBe(logLevel === "info" || logLevel === "debug");
    expect(collector.bodies.join("").length).toBeGreaterThan(1000);
    for (const text of [...lines, ...collector.bodies]) expect(text).not.toContain(MARKER);
  });

  it("are in the log when asked for", async () => {
    const app = await start({ logLevel: "info", logPrompts: true, otlpEndpoint: "" });
    const lines = logLines(app);
    const text = await sendEverywhere(app);
    const logged = lines.map((line) => JSON.parse(line)).filter(({ sequence }) => sequence !== undefined);
    const [prompt, output] = logged;
    expect(prompt).toMatchObject({ msg: "prompt", prompt: MARKER, promptBytes: MARKER.length });
    expect(output).toMatchObject({ msg: "output", sequence: prompt.sequence, reqId: prompt.reqId, outputBytes: 12 });
    expect(Buffer.from(output.output).toString()).toBe(text);
    expect(lines.join("")).not.toContain("trace_id");
  });
});
