import { describe, expect, it } from "vitest";
import { MblmApiError, MblmConnectionError, MblmProtocolError } from "../../src/client/errors.js";
import { MblmClient } from "../../src/client/mblm-client.js";
import {
  type Answer,
  chunk,
  collect,
  completion,
  cut,
  DONE,
  event,
  events,
  failure,
  hold,
  joined,
  json,
  LAST,
  parts,
  SSE,
  USAGE,
  USAGE_EVENT,
  useScriptedServer,
} from "./scripted-server.js";

const server = useScriptedServer();
const ask = { prompt: "x" };
const encode = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

const PIECES = ["¡Hé", "🦊!", "\r\n𝛑"];
const RAW = Uint8Array.of(0xff, 0x00, 0xc3); // not UTF-8
/** Comments, an event name, an id, fields without meaning, several lines of data: all that the format has. */
const STREAM = [
  ": ping\n\n",
  chunk({ text: PIECES[0]! }),
  `: ping\n\nevent: completion\nid: 4\nretry: 100\nx: y\n${chunk({ text: PIECES[1]! })}`,
  `data:${JSON.stringify(completion([{ text: PIECES[2]!, token_ids: [...encode(PIECES[2]!)] }])).replace('"choices"', '\ndata: "choices"')}\n\n`,
  chunk({ text: "\ufffd\0\ufffd", token_ids: [...RAW], finish_reason: "stop", stop_reason: [1, 255] }),
  USAGE_EVENT,
  DONE,
].join("");
const BYTES = [...encode(PIECES.join("")), ...RAW];
const TEXT = `${PIECES.join("")}\ufffd\0\ufffd`;
const END = {
  id: "cmpl-1",
  created: 17,
  model: "books",
  systemFingerprint: "fp",
  requestId: "req-7",
  finishReason: "stop",
  stopReason: Uint8Array.of(1, 255),
  usage: { promptTokens: 2, completionTokens: 3, totalTokens: 5, cachedTokens: 1 },
};
const LINE_ENDS = [
  ["LF", (text: string) => text],
  ["CRLF", (text: string) => text.replaceAll("\n", "\r\n")],
  ["CR", (text: string) => text.replaceAll("\n", "\r")],
] as const;

/** A client whose network delivers exactly these parts. */
function clientOf(list: readonly Uint8Array[]): MblmClient {
  const fetch = async (): Promise<Response> =>
    new Response(
      new ReadableStream({
        start(controller) {
          for (const part of list) controller.enqueue(part);
          controller.close();
        },
      }),
      { headers: { "content-type": SSE, "x-request-id": "req-7" } },
    );
  return new MblmClient({ baseUrl: "http://nowhere", fetch });
}

describe.each(LINE_ENDS)("a stream with %s", (_, withEnds) => {
  const wire = encode(withEnds(STREAM));

  it("is the same cut in two anywhere", async () => {
    for (let at = 0; at <= wire.length; at++) {
      const client = clientOf([wire.subarray(0, at), wire.subarray(at)]);
      const stream = client.streamBytes(ask);
      expect(await joined(stream), `cut at ${at}`).toEqual(BYTES);
      expect(stream.result, `cut at ${at}`).toEqual(END);
      expect((await collect(client.streamText(ask))).join(""), `cut at ${at}`).toBe(TEXT);
    }
  });

  it("is the same byte by byte, and with a byte order mark", async () => {
    const client = clientOf([...encode("\ufeff"), ...wire].map((byte) => Uint8Array.of(byte)));
    expect(await joined(client.streamBytes(ask))).toEqual(BYTES);
    expect(await collect(client.streamText(ask))).toEqual([...PIECES, "\ufffd\0\ufffd"]);
  });

  it("is the same over HTTP, byte by byte", async () => {
    server.script(
      parts(
        SSE,
        [...wire].map((byte) => Uint8Array.of(byte)),
      ),
    );
    const stream = server.client().streamText(ask);
    expect(await collect(stream)).toEqual([...PIECES, "\ufffd\0\ufffd"]);
    expect(stream.result).toEqual(END);
  });
});

it("is the same over HTTP, cut in two anywhere", async () => {
  const wire = encode(STREAM);
  for (let at = 1; at < wire.length; at++) {
    server.script(parts(SSE, [wire.subarray(0, at), wire.subarray(at)]));
    expect(await joined(server.client().streamBytes(ask)), `cut at ${at}`).toEqual(BYTES);
  }
});

describe("what is sent", () => {
  it("asks for a stream, its usage and its bytes", async () => {
    server.script(events(LAST, DONE));
    const client = server.client({ apiKey: "k", headers: { "x-team": "a" } });
    await collect(
      client.streamBytes({ prompt: Uint8Array.of(200, 1), maxTokens: 4, extra: { stream: false, odd: 1 } }),
    );
    const { method, url, headers, body } = server.received[0]!;
    expect([method, url]).toEqual(["POST", "/v1/completions"]);
    expect(headers).toMatchObject({
      accept: "text/event-stream",
      authorization: "Bearer k",
      "content-type": "application/json",
      "x-team": "a",
    });
    expect(JSON.parse(body.toString())).toEqual({
      prompt: [200, 1],
      max_tokens: 4,
      odd: 1,
      stream: true,
      stream_options: { include_usage: true },
      return_token_ids: true,
    });
  });

  it("nothing before the first piece is asked for", async () => {
    server.script(json({ status: "ready" }));
    const stream = server.client().streamText(ask);
    const readable = server.client().streamText(ask).toReadableStream();
    await server.client().health();
    expect(server.received.map(({ url }) => url)).toEqual(["/health"]);
    expect(stream.result).toBeUndefined();
    await readable.cancel();
  });

  it.each(["", "/", "/v1", "/v1/"])("to the right place for a base that ends with %j", async (end) => {
    server.script(json({ object: "list", data: [] }), json({ object: "list", data: [] }));
    await server.client({ baseUrl: `${server.url}${end}` }).models();
    await server.client({ baseUrl: `${server.url}/proxy${end}` }).models();
    expect(server.received.map(({ url }) => url)).toEqual(["/v1/models", "/proxy/v1/models"]);
  });
});

describe("a stream is whole only if it says so", () => {
  const some = chunk({ text: "a" });
  const cases: [string, Answer, string][] = [
    ["ends without [DONE]", events(some, LAST), "broke off"],
    ["ends inside the last event", events(some, LAST, "data: [DONE]\n"), "broke off"],
    ["ends inside a character", parts(SSE, [some, Uint8Array.of(0x64, 0xf0, 0x9f)]), "broke off"],
    ["ends at once", events(), "broke off"],
    ["is cut", parts(SSE, [some], cut), "connection failed"],
    ["is cut after its last choice", parts(SSE, [some, LAST], cut), "connection failed"],
    ["says [DONE] without a finish reason", events(some, DONE), "gave up"],
    ["says nothing but [DONE]", events(DONE), "gave up"],
  ];
  it.each(cases)("%s", async (_, answer, message) => {
    for (const method of ["streamBytes", "streamText", "streamChoices"] as const) {
      server.script(answer);
      const stream = server.client()[method](ask);
      const error = await failure(collect<unknown>(stream as AsyncIterable<unknown>));
      expect(error).toBeInstanceOf(MblmConnectionError);
      expect((error as Error).message).toContain(message);
      expect(stream.result).toBeUndefined();
    }
  });

  it("and if every choice says so", async () => {
    const first = chunk({ index: 0, text: "a", finish_reason: "stop" });
    const second = chunk({ index: 1, text: "b", finish_reason: "length" });
    server.script(events(first, DONE), events(second, first, USAGE_EVENT, DONE));
    const request = { prompt: "x", n: 2 };
    await expect(collect(server.client().streamChoices(request))).rejects.toThrow("gave up");
    const stream = server.client().streamChoices(request);
    expect((await collect(stream)).map(({ index, text }) => [index, text])).toEqual([
      [1, "b"],
      [0, "a"],
    ]);
    expect(stream.result!.choices).toEqual([
      { finishReason: "stop", stopReason: null },
      { finishReason: "length", stopReason: null },
    ]);
  });

  it("but need not close the connection", async () => {
    server.script(parts(SSE, [LAST, DONE], hold));
    const stream = server.client().streamBytes(ask);
    expect(await collect(stream)).toEqual([]);
    expect(stream.result).toMatchObject({ finishReason: "length", usage: undefined });
    await server.received[0]!.closed;
  });
});

describe("a failure inside a stream", () => {
  const error = { message: "broken", type: "server_error", param: null, code: "engine_failed" };

  it("is thrown after what came before it", async () => {
    server.script(events(chunk({ text: "a" }), event({ error }), DONE));
    const seen: string[] = [];
    const thrown = await failure(
      (async () => {
        for await (const text of server.client().streamText(ask)) seen.push(text);
      })(),
    );
    expect(seen).toEqual(["a"]);
    expect(thrown).toBeInstanceOf(MblmApiError);
    expect(thrown).toMatchObject({ ...error, param: undefined, status: 200, requestId: "req-7" });
  });

  it.each([
    ["no JSON", event("{oops"), "no JSON: {oops"],
    ["no object", event("[1]"), "no JSON object"],
    ["no completion", event({ hello: 1 }), "no choices"],
    ["no bytes", event(completion([{ text: "a", token_ids: undefined as never }])), "token_ids"],
    ["an unknown ending", chunk({ finish_reason: "abort" }), "abort"],
    ["another choice", chunk({ index: 1, text: "a" }), "not asked for"],
  ])("%s is not passed over", async (_, data, message) => {
    server.script(events(data, LAST, DONE));
    const thrown = await failure(collect(server.client().streamBytes(ask)));
    expect(thrown).toBeInstanceOf(MblmProtocolError);
    expect((thrown as Error).message).toContain(message);
  });

  it("an answer that is no stream is no success", async () => {
    server.script(json(completion([{ text: "a", finish_reason: "stop" }])));
    expect(await failure(collect(server.client().streamText(ask)))).toBeInstanceOf(MblmProtocolError);
  });
});

describe("what a piece has", () => {
  it("logprobs, ids and reports on the prompt", async () => {
    const logprobs = { tokens: ["a"], token_logprobs: [-1], top_logprobs: [{ a: -1 }], text_offset: [0] };
    server.script(
      events(
        chunk({
          text: "a",
          token_ids: [97, 300],
          logprobs,
          prompt_token_ids: [120],
          prompt_logprobs: [null, { 5: { logprob: -2, rank: 1, decoded_token: "x" } }],
        }),
        chunk({ finish_reason: "stop", stop_reason: 300 }),
        DONE,
      ),
    );
    const [first, last] = await collect(server.client().streamChoices({ prompt: "x", logprobs: 1, promptLogprobs: 1 }));
    expect(first).toEqual({
      index: 0,
      text: "a",
      bytes: Uint8Array.of(97),
      tokenIds: [97, 300],
      promptTokenIds: [120],
      logprobs: { tokens: ["a"], tokenLogprobs: [-1], topLogprobs: [{ a: -1 }], textOffset: [0] },
      promptLogprobs: [null, { 5: { logprob: -2, rank: 1, decodedToken: "x" } }],
      finishReason: null,
      stopReason: null,
    });
    expect(last).toMatchObject({ finishReason: "stop", stopReason: 300, logprobs: undefined });
  });

  it("with echo, the prompt's bytes, too", async () => {
    const first = { text: "xya", token_ids: [97], prompt_token_ids: [120, 121] };
    server.script(events(chunk(first), LAST, DONE));
    expect(await joined(server.client().streamBytes({ prompt: "xy", echo: true }))).toEqual([120, 121, 97]);
    server.script(events(chunk(first), LAST, DONE));
    expect(await joined(server.client().streamBytes({ prompt: "xy" }))).toEqual([97]);
  });
});

describe("a stream can be read", () => {
  it("as a web stream", async () => {
    server.script(events(chunk({ text: "a" }), chunk({ text: "é" }), LAST, USAGE_EVENT, DONE));
    const stream = server.client().streamBytes(ask);
    expect(await new Response(stream.toReadableStream()).text()).toBe("aé");
    expect(stream.result!.usage!.totalTokens).toBe(USAGE.total_tokens);
  });

  it("as a web stream that fails", async () => {
    server.script(events(chunk({ text: "a" })));
    const reader = server.client().streamText(ask).toReadableStream().getReader();
    expect(await reader.read()).toEqual({ done: false, value: "a" });
    expect(await failure(reader.read())).toBeInstanceOf(MblmConnectionError);
  });

  it("once", async () => {
    server.script(events(LAST, DONE));
    const stream = server.client().streamText(ask);
    await collect(stream);
    expect(() => stream.toReadableStream()).toThrow(TypeError);
    await expect(collect(stream)).rejects.toThrow("only once");
  });
});
