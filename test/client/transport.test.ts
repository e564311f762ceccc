import { describe, expect, it } from "vitest";
import { MblmClient } from "../../src/client/index.js";
import { answer, failure, type Handler, scripted } from "./scripted-server.js";

const WHOLE = {
  id: "cmpl-1",
  model: "m",
  system_fingerprint: "f",
  choices: [{ index: 0, text: "é", token_ids: [0xc3, 0xa9], finish_reason: "stop", stop_reason: null, logprobs: null }],
  usage: { prompt_tokens: 1, completion_tokens: 2 },
};
const NOW = { "retry-after-ms": "1" };

describe("retries", () => {
  const cases: [name: string, first: Handler, isRetried: boolean][] = [
    ["429 with retry-after-ms", answer(429, failure("overloaded"), NOW), true],
    ["503 with retry-after in seconds", answer(503, failure("shutting_down"), { "retry-after": "0.001" }), true],
    ["429 with a date", answer(429, failure("overloaded"), { "retry-after": new Date(0).toUTCString() }), true],
    ["408", answer(408, failure("timeout"), NOW), true],
    ["409", answer(409, failure("conflict"), NOW), true],
    ["500", answer(500, failure("engine_failed"), NOW), true],
    ["500 that says not to", answer(500, failure("engine_failed"), { ...NOW, "x-should-retry": "false" }), false],
    ["400 that says to", answer(400, failure("odd"), { ...NOW, "x-should-retry": "true" }), true],
    ["400", answer(400, failure("invalid_request"), NOW), false],
    ["404", answer(404, failure("model_not_found"), NOW), false],
    ["a connection that breaks", (_, response) => void response.destroy(), true],
  ];
  it.each(cases)("%s", async (_, first, isRetried) => {
    const { url, requests } = await scripted(first, answer(200, WHOLE));
    const completion = new MblmClient({ baseUrl: url }).complete({ prompt: "a" });
    if (isRetried) expect((await completion).choices[0]!.bytes).toEqual(Uint8Array.of(0xc3, 0xa9));
    else await expect(completion).rejects.toThrow();
    expect(requests).toHaveLength(isRetried ? 2 : 1);
  });

  it("end after maxRetries with the last error", async () => {
    const { url, requests } = await scripted(answer(429, failure("overloaded"), NOW));
    const completion = new MblmClient({ baseUrl: url, maxRetries: 3 }).complete({ prompt: "a" });
    await expect(completion).rejects.toMatchObject({ status: 429, code: "overloaded", message: "It is overloaded." });
    expect(requests).toHaveLength(4);
  });

  it("never repeat a body that was a stream, nor a stream that had begun", async () => {
    const busy = await scripted(answer(429, failure("overloaded"), NOW));
    const body = new Blob(["abc"]).stream();
    await expect(new MblmClient({ baseUrl: busy.url }).score(body)).rejects.toMatchObject({ status: 429 });
    expect(busy.requests).toHaveLength(1);

    const cut = await scripted((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk("a", [97]), () => response.destroy());
    });
    const bytes = new MblmClient({ baseUrl: cut.url }).stream({ prompt: "a" }).bytes();
    expect((await bytes.next()).value).toEqual(Uint8Array.of(97));
    await expect(bytes.next()).rejects.toMatchObject({ code: "stream_cut" });
    expect(cut.requests).toHaveLength(1);
  });

  it("stop at once when the signal is aborted, with its reason", async () => {
    const { url, requests } = await scripted(answer(429, failure("overloaded"), { "retry-after": "30" }));
    const controller = new AbortController();
    const completion = new MblmClient({ baseUrl: url }).complete({ prompt: "a" }, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await expect(completion).rejects.toThrow("enough");
    expect(requests).toHaveLength(1);
  });
});

describe("requests", () => {
  it("carry the key, and nothing that was not set", async () => {
    let seen: unknown;
    const { url, requests } = await scripted((_, response, body) => {
      seen = JSON.parse(body.toString());
      response.end(JSON.stringify(WHOLE));
    });
    await new MblmClient({ baseUrl: url, apiKey: "secret" }).complete({ prompt: Uint8Array.of(1, 2), topK: 3 });
    expect(seen).toEqual({ prompt: [1, 2], top_k: 3, return_token_ids: true });
    expect(requests[0]!.headers.authorization).toBe("Bearer secret");
    expect(requests[0]!.url).toBe("/v1/completions");
  });

  it("give up after timeoutMs without an answer", async () => {
    const { url } = await scripted(() => {});
    const client = new MblmClient({ baseUrl: url, timeoutMs: 30, maxRetries: 0 });
    await expect(client.complete({ prompt: "a" })).rejects.toMatchObject({ code: "timeout" });
  });

  it("an answer that is not the server's is shown", async () => {
    const { url } = await scripted((_, response) => void response.writeHead(502).end("<html>Bad gateway"));
    const client = new MblmClient({ baseUrl: url, maxRetries: 0 });
    await expect(client.complete({ prompt: "a" })).rejects.toMatchObject({
      status: 502,
      code: "unexpected_answer",
      message: expect.stringContaining("Bad gateway"),
    });
  });
});

const chunk = (text: string, ids: number[], finish: string | null = null): string =>
  `data: ${JSON.stringify({ id: "c", choices: [{ index: 0, text, token_ids: ids, finish_reason: finish, stop_reason: null }], usage: null })}\n\n`;
const USAGE = `data: ${JSON.stringify({ id: "c", choices: [], usage: { prompt_tokens: 1, completion_tokens: 5 } })}\n\n`;
const DONE = "data: [DONE]\n\n";
const STREAM = `: ping\n\n${chunk("a", [97, 0xc3])}${chunk("é", [0xa9])}: ping\n\n${chunk("€", [0xe2, 0x82, 0xac])}${chunk("", [], "stop")}${USAGE}${DONE}`;

/** Sends the bytes in two parts, or whole. */
function sse(bytes: Buffer, cut = bytes.length): Handler {
  return (_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(bytes.subarray(0, cut), () => setImmediate(() => response.end(bytes.subarray(cut))));
  };
}

async function read(url: string): Promise<{ text: string; bytes: number[] }> {
  const client = new MblmClient({ baseUrl: url });
  const bytes: number[] = [];
  for await (const part of client.stream({ prompt: "a" }).bytes()) bytes.push(...part);
  let text = "";
  for await (const part of client.stream({ prompt: "a" }).text()) text += part;
  return { text, bytes };
}

describe("streams", () => {
  it("are read right wherever the network cuts them, with any line ending", async () => {
    for (const body of [STREAM, STREAM.replaceAll("\n", "\r\n")]) {
      const bytes = Buffer.from(body);
      let cut = 0;
      const { url } = await scripted((...args) => sse(bytes, cut)(...args));
      for (cut = 1; cut < bytes.length; cut += 3) {
        expect(await read(url)).toEqual({ text: "aé€", bytes: [...Buffer.from("aé€")] });
      }
    }
  });

  const CUT: [name: string, body: string][] = [
    ["without [DONE]", chunk("a", [97]) + chunk("", [], "stop") + USAGE],
    ["without a finish reason", chunk("a", [97]) + USAGE + DONE],
    ["without anything", ""],
    ["in the middle of an event", STREAM.slice(0, 90)],
  ];
  it.each(CUT)("that end %s are errors", async (_, body) => {
    const { url } = await scripted(sse(Buffer.from(body)));
    const stream = new MblmClient({ baseUrl: url }).stream({ prompt: "a" });
    await expect(
      (async () => {
        for await (const _ of stream.bytes());
      })(),
    ).rejects.toMatchObject({ code: "stream_cut" });
    await expect(stream.end).rejects.toMatchObject({ code: "stream_cut" });
  });

  it("that bring an error throw it", async () => {
    const body = `${chunk("a", [97])}data: ${JSON.stringify(failure("engine_failed"))}\n\n${DONE}`;
    const { url } = await scripted(sse(Buffer.from(body)));
    const bytes = new MblmClient({ baseUrl: url }).stream({ prompt: "a" }).bytes();
    expect((await bytes.next()).value).toEqual(Uint8Array.of(97));
    await expect(bytes.next()).rejects.toMatchObject({ code: "engine_failed", status: undefined });
  });
});

describe("scores", () => {
  it("that end without a summary, or bring an error, throw", async () => {
    const lines = `{"offset":0,"logprobs":[-1]}\n`;
    for (const [tail, code] of [
      ["", "stream_cut"],
      [`${JSON.stringify(failure("engine_failed"))}\n`, "engine_failed"],
    ]) {
      const { url } = await scripted((_, response) => void response.end(lines + tail));
      const scores = new MblmClient({ baseUrl: url }).scoreStream("a");
      expect((await scores.next()).value).toEqual({ offset: 0, values: [-1] });
      await expect(scores.next()).rejects.toMatchObject({ code });
    }
  });
});
