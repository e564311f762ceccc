import { afterEach, describe, expect, it, vi } from "vitest";
import { MblmApiError, MblmConnectionError, MblmTimeoutError } from "../../src/client/errors.js";
import {
  type Answer,
  chunk,
  collect,
  completion,
  cut,
  DONE,
  events,
  failure,
  hold,
  json,
  LAST,
  parts,
  SSE,
  useScriptedServer,
} from "./scripted-server.js";

const server = useScriptedServer();
const refusal = (status: number, headers: Record<string, string> = { "retry-after-ms": "1" }): Answer =>
  json({ error: { message: "no", type: "t", param: null, code: "c" } }, status, headers);
const success = json(completion([{ text: "ab", token_ids: [97, 98], finish_reason: "length" }]));
const ask = { prompt: "x" };

describe("tries again", () => {
  it.each([
    ["408", [refusal(408), success]],
    ["409", [refusal(409), success]],
    ["429", [refusal(429), success]],
    ["500 and 503", [refusal(500), refusal(503), success]],
    ["a date in the past", [refusal(503, { "retry-after": "Wed, 01 Jan 2020 00:00:00 GMT" }), success]],
    ["no seconds", [refusal(503, { "retry-after": "0" }), success]],
    ["what the server says to", [refusal(400, { "x-should-retry": "true", "retry-after-ms": "1" }), success]],
    ["a connection that is cut before the answer", [cut, success]],
  ])("after %s, with the same body", async (_, script) => {
    server.script(...script);
    const { choices } = await server.client().complete(ask);
    expect(choices[0]!.text).toBe("ab");
    expect(server.received).toHaveLength(script.length);
    expect(new Set(server.received.map(({ body }) => body.toString())).size).toBe(1);
  });

  it("streams and bytes to score, too", async () => {
    server.script(refusal(429), events(chunk({ text: "a" }), LAST, DONE));
    expect(await collect(server.client().streamText(ask))).toEqual(["a"]);
    server.script(refusal(429), json({ object: "score", model: "m", bytes: 3, bits_per_byte: 1, total_logprob: -2 }));
    expect(await server.client().score(Uint8Array.of(1, 2, 3))).toMatchObject({ bytes: 3 });
    expect(server.received.slice(2).map(({ body }) => [...body])).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
  });

  it.each([
    [{}, {}, 3],
    [{ maxRetries: 0 }, {}, 1],
    [{ maxRetries: 1 }, {}, 2],
    [{ maxRetries: 1 }, { maxRetries: 3 }, 4],
    [{}, { maxRetries: 0 }, 1],
  ])("as often as told: client %j, call %j", async (ofClient, ofCall, numTries) => {
    server.script(...Array.from({ length: 9 }, () => refusal(503)));
    const error = await failure(server.client(ofClient).complete(ask, ofCall));
    expect(error).toBeInstanceOf(MblmApiError);
    expect(server.received).toHaveLength(numTries);
  });
});

describe("does not try again", () => {
  it.each([
    ["400", refusal(400)],
    ["404", refusal(404)],
    ["499", refusal(499)],
    ["what the server says not to", refusal(503, { "x-should-retry": "false", "retry-after-ms": "1" })],
    ["when the server asks for a long wait", refusal(503, { "retry-after": "3600" })],
  ])("%s", async (_, answer) => {
    server.script(answer, success);
    expect(await failure(server.client().complete(ask))).toBeInstanceOf(MblmApiError);
    expect(server.received).toHaveLength(1);
  });

  it.each([
    ["cut", parts(SSE, [chunk({ text: "a" })], cut)],
    ["cut before its first byte", parts(SSE, [], (response) => response.flushHeaders() ?? cut(response))],
    ["failed", events(chunk({ text: "a" }), 'data: {"error":{"message":"m","code":"engine_failed"}}\n\n', DONE)],
    ["not whole", events(chunk({ text: "a" }))],
  ])("a stream that began and is %s", async (_, answer) => {
    server.script(answer, answer);
    await expect(collect(server.client().streamText(ask))).rejects.toThrow();
    expect(server.received).toHaveLength(1);
  });

  it("a streamed body, which is gone", async () => {
    server.script(refusal(503), success);
    async function* source() {
      yield Uint8Array.of(1);
    }
    expect(await failure(server.client().score(source()))).toMatchObject({ status: 503 });
    expect(server.received).toHaveLength(1);
  });

  it("a silent server", async () => {
    server.script(hold, success);
    expect(await failure(server.client({ timeoutMs: 30 }).complete(ask))).toBeInstanceOf(MblmTimeoutError);
    expect(server.received).toHaveLength(1);
  });

  it("when it is cancelled while it waits", async () => {
    const controller = new AbortController();
    server.script((response, request) => {
      refusal(503, { "retry-after": "50" })(response, request);
      void request.closed.then(() => controller.abort("enough"));
    });
    expect(await failure(server.client().complete(ask, { signal: controller.signal }))).toBe("enough");
    expect(server.received).toHaveLength(1);
  });
});

describe("the wait between two tries", () => {
  const setUp = (answer: () => Response) => {
    vi.useFakeTimers();
    const fetch = vi.fn(async () => answer());
    return { fetch, client: server.client({ fetch }) };
  };
  afterEach(() => {
    vi.useRealTimers();
  });
  const busy = () => new Response("{}", { status: 503, headers: { "retry-after": "3" } });

  it("is as long as the server asks for", async () => {
    const { fetch, client } = setUp(busy);
    const pending = failure(client.complete(ask));
    for (const numTries of [1, 2, 3]) {
      await vi.advanceTimersByTimeAsync(2999);
      expect(fetch).toHaveBeenCalledTimes(numTries);
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(await pending).toMatchObject({ status: 503, retryAfterSeconds: 3 });
    expect(fetch).toHaveBeenCalledTimes(3);
  });

  it("ends at once when the call is cancelled", async () => {
    const { fetch, client } = setUp(busy);
    const controller = new AbortController();
    const pending = failure(client.complete(ask, { signal: controller.signal }));
    await vi.advanceTimersByTimeAsync(1);
    controller.abort("enough");
    expect(await pending).toBe("enough");
    expect(vi.getTimerCount()).toBe(0);
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it("never comes after fetch's own patience ended: the server may still be at work", async () => {
    const { fetch, client } = setUp(() => {
      const cause = Object.assign(new Error("Headers Timeout Error"), { name: "HeadersTimeoutError" });
      throw new TypeError("fetch failed", { cause });
    });
    expect(await failure(client.complete(ask))).toBeInstanceOf(MblmTimeoutError);
    expect(fetch).toHaveBeenCalledTimes(1);
  });
});

it("nobody listens: a connection error with fetch's reason", async () => {
  const client = server.client({ baseUrl: "http://127.0.0.1:1", maxRetries: 0 });
  const error = await failure(client.complete(ask));
  expect(error).toBeInstanceOf(MblmConnectionError);
  expect((error as Error).message).toMatch(/ECONNREFUSED|bad port/);
  expect((error as Error).cause).toBeInstanceOf(Error);
});
