import { describe, expect, it } from "vitest";
import { MblmApiError, MblmClientError, MblmConnectionError, MblmProtocolError } from "../../src/client/errors.js";
import { MblmClient } from "../../src/client/mblm-client.js";
import {
  type Answer,
  collect,
  completion,
  cut,
  failure,
  json,
  NDJSON,
  parts,
  USAGE,
  useScriptedServer,
} from "./scripted-server.js";

const server = useScriptedServer();
const ask = { prompt: "x" };
const once = { maxRetries: 0 };
const html: Answer = (response) =>
  response.writeHead(502, { "content-type": "text/html" }).end("<h1>Bad gateway</h1>\n");

describe("a refusal", () => {
  it.each([
    [
      "of the API",
      json({ error: { message: "m", type: "rate_limit_error", param: null, code: "overloaded" } }, 429, {
        "x-request-id": "r1",
        "retry-after": "2",
      }),
      {
        status: 429,
        message: "m",
        type: "rate_limit_error",
        param: undefined,
        code: "overloaded",
        requestId: "r1",
        retryAfterSeconds: 2,
      },
    ],
    [
      "that blames a field",
      json({ error: { message: "m", type: "invalid_request_error", param: "top_p", code: "invalid_request" } }, 400),
      { status: 400, param: "top_p", requestId: undefined, retryAfterSeconds: undefined },
    ],
    ["of another server", json({ error: { message: "m", code: 400 } }, 400), { code: "400", type: undefined }],
    ["that is just a message", json({ error: "why" }, 400), { message: "why", code: undefined }],
    ["of a proxy", html, { status: 502, message: "<h1>Bad gateway</h1>" }],
    ["without a body", (response) => response.writeHead(503).end(), { status: 503, message: "Service Unavailable" }],
    ["that breaks off", (response) => response.writeHead(500).write("x", () => cut(response)), { status: 500 }],
  ] as [string, Answer, object][])("%s", async (_, answer, expected) => {
    for (const call of [
      (client: MblmClient) => client.complete(ask),
      (client: MblmClient) => collect(client.streamBytes(ask)),
      (client: MblmClient) => client.score(Uint8Array.of(1)),
      (client: MblmClient) => collect(client.scoreStream(Uint8Array.of(1), { return: "entropy" })),
    ]) {
      server.script(answer);
      const error = await failure(call(server.client(once)));
      expect(error).toBeInstanceOf(MblmApiError);
      expect(error).toBeInstanceOf(MblmClientError);
      expect(error).toMatchObject({ name: "MblmApiError", ...expected });
    }
  });
});

describe("complete", () => {
  it("has all choices, bytes and usage", async () => {
    server.script(
      json(
        completion(
          [
            { text: "a\ufffd", token_ids: [97, 255], finish_reason: "stop", stop_reason: "\n" },
            { index: 1, text: "b", token_ids: [98, 256], finish_reason: "length" },
          ],
          USAGE,
        ),
        200,
        { "x-request-id": "r2" },
      ),
    );
    const answer = await server.client().complete({ prompt: "x", n: 2, maxTokens: 2 });
    expect(answer).toMatchObject({ id: "cmpl-1", model: "books", requestId: "r2", usage: { cachedTokens: 1 } });
    expect(answer.choices).toMatchObject([
      { index: 0, text: "a\ufffd", bytes: Uint8Array.of(97, 255), finishReason: "stop", stopReason: "\n" },
      { index: 1, text: "b", bytes: Uint8Array.of(98), tokenIds: [98, 256], finishReason: "length" },
    ]);
    expect(JSON.parse(server.received[0]!.body.toString())).toEqual({
      prompt: "x",
      n: 2,
      max_tokens: 2,
      stream: false,
      return_token_ids: true,
    });
  });

  it.each([
    ["no JSON", parts("application/json", ["{"]), MblmProtocolError],
    ["a page", parts("text/html", ["<p>"]), MblmProtocolError],
    ["another object", json({ object: "list" }), MblmProtocolError],
    ["not finished", json(completion([{ text: "a" }])), MblmProtocolError],
    ["cut", parts("application/json", ['{"choices"'], cut), MblmConnectionError],
  ])("fails for an answer that is %s", async (_, answer, kind) => {
    server.script(answer);
    expect(await failure(server.client().complete(ask))).toBeInstanceOf(kind);
    expect(server.received).toHaveLength(1);
  });
});

describe("score", () => {
  const summary = { object: "score", id: "score-1", model: "m", bytes: 3, bits_per_byte: 2, total_logprob: -4 };
  const line = (value: object): string => `${JSON.stringify(value)}\n`;
  const first = line({ offset: 0, logprobs: [-1, -2] });
  const second = line({ offset: 2, logprobs: [-1] });

  it("sends the bytes as they are and reads the summary", async () => {
    const data = Uint8Array.of(0, 255, 13);
    const stream = (): ReadableStream<Uint8Array> =>
      new ReadableStream<Uint8Array>({
        start(controller) {
          for (const byte of data) controller.enqueue(Uint8Array.of(byte));
          controller.close();
        },
      });
    async function* generator() {
      for (const byte of data) yield Uint8Array.of(byte);
    }
    const sources = [data, data.buffer, new Blob([data], { type: "text/plain" }), stream(), generator()];
    for (const source of sources) {
      server.script(json(summary));
      expect(await server.client().score(source, { model: "a b", priority: -1 })).toEqual({
        id: "score-1",
        model: "m",
        bytes: 3,
        bitsPerByte: 2,
        totalLogprob: -4,
        meanEntropy: undefined,
        requestId: undefined,
      });
      const { url, headers, body } = server.received.at(-1)!;
      expect(url).toBe("/v1/score?return=summary&model=a+b&priority=-1");
      expect(headers["content-type"]).toBe("application/octet-stream");
      expect([...body]).toEqual([...data]);
    }
    await expect(server.client().score("text" as never)).rejects.toThrow(TypeError);
  });

  it("streams numbers cut anywhere, then has the summary", async () => {
    const wire = first + second + JSON.stringify({ ...summary, mean_entropy: 0.5 });
    for (let at = 0; at <= wire.length; at += 1) {
      server.script(parts(NDJSON, [wire.slice(0, at), wire.slice(at)].filter(Boolean)));
      const stream = server.client().scoreStream(Uint8Array.of(1, 2, 3), { return: "logprobs" });
      expect(await collect(stream)).toEqual([
        { offset: 0, logprobs: Float64Array.of(-1, -2) },
        { offset: 2, logprobs: Float64Array.of(-1) },
      ]);
      expect(stream.result).toMatchObject({ bytes: 3, meanEntropy: 0.5, requestId: "req-7" });
    }
    expect(server.received[0]!.url).toBe("/v1/score?return=logprobs");
  });

  it.each([
    ["no summary", [first, second], MblmConnectionError],
    ["an error", [first, line({ error: { message: "m", code: "engine_failed" } })], MblmApiError],
    ["fewer numbers than bytes", [first, line(summary)], MblmProtocolError],
    ["a gap", [first, line({ offset: 3, logprobs: [-1] }), line(summary)], MblmProtocolError],
    ["other numbers", [line({ offset: 0, entropy: [1, 1, 1] }), line(summary)], MblmProtocolError],
    ["what is no number", [line({ offset: 0, logprobs: [null, 1, 1] }), line(summary)], MblmProtocolError],
    ["no JSON", [first, "{\n"], MblmProtocolError],
  ])("a stream with %s is no success", async (_, list, kind) => {
    server.script(parts(NDJSON, list));
    const stream = server.client().scoreStream(Uint8Array.of(1, 2, 3), { return: "logprobs" });
    expect(await failure(collect(stream))).toBeInstanceOf(kind);
    expect(stream.result).toBeUndefined();
  });

  it("a stream that is cut is no success", async () => {
    server.script(parts(NDJSON, [first, second], cut));
    const stream = server.client().scoreStream(Uint8Array.of(1, 2, 3), { return: "logprobs" });
    expect(await failure(collect(stream))).toBeInstanceOf(MblmConnectionError);
  });
});

describe("service", () => {
  it("a server that is not ready is an answer, asked for once", async () => {
    server.script(json({ status: "draining" }, 503), json({ status: "ready" }));
    expect(await server.client().health()).toEqual({ isReady: false, status: "draining" });
    expect(await server.client().health()).toEqual({ isReady: true, status: "ready" });
    expect(server.received).toHaveLength(2);
    server.script(json({}, 500, { "retry-after-ms": "1" }));
    expect(await failure(server.client().health())).toMatchObject({ status: 500 });
    expect(server.received).toHaveLength(3);
  });

  it.each([
    ["models", (client: MblmClient) => client.models()],
    ["tokenize", (client: MblmClient) => client.tokenize("a")],
    ["detokenize", (client: MblmClient) => client.detokenize([1])],
    ["score", (client: MblmClient) => client.score(Uint8Array.of(1))],
  ])("%s fails for an answer that is something else", async (_, call) => {
    server.script(json({}));
    expect(await failure(call(server.client()))).toBeInstanceOf(MblmProtocolError);
  });
});

describe("options", () => {
  it.each([
    [{ baseUrl: "no url" }],
    [{ maxRetries: -1 }],
    [{ maxRetries: 0.5 }],
    [{ timeoutMs: 0 }],
    [{ timeoutMs: 2 ** 31 }],
    [{ timeoutMs: Number.NaN }],
  ])("%j is refused", async (options) => {
    expect(() => new MblmClient({ baseUrl: "http://127.0.0.1", ...options })).toThrow(TypeError);
    if ("baseUrl" in options) return;
    await expect(server.client().complete(ask, options)).rejects.toThrow(TypeError);
    expect(() => server.client().streamText(ask, options)).toThrow(TypeError);
  });
});
