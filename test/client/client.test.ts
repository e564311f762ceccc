import { describe, expect, it } from "vitest";
import { MblmApiError, MblmClient } from "../../src/client/index.js";
import { untilIdle, useApp } from "../http/test-app.js";
import { readGolden } from "../test-bundles.js";

const app = useApp("mamba2-transformer");
const client = (options: object = {}): MblmClient =>
  new MblmClient({ baseUrl: `${app().url}/`, maxRetries: 0, ...options });

async function collect<T>(pieces: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const piece of pieces) all.push(piece);
  return all;
}

describe("the client against the server", () => {
  it("completes prompts of bytes and of text, with every option by its name", async () => {
    const { prompt, greedy, logprobs } = readGolden("mamba2-transformer").cases.at(-1)!;
    const completion = await client().complete({
      prompt: Uint8Array.from(prompt),
      model: "mamba2-transformer",
      maxTokens: greedy.length,
      minTokens: 1,
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      logitBias: { 65: 0 },
      stop: [Uint8Array.of(0, 1, 2, 3, 4), "a stop that does not come"],
      stopTokenIds: [],
      ignoreEos: true,
      includeStop: true,
      logprobs: 2,
      promptLogprobs: 1,
      cacheSalt: "client",
      priority: 1,
      requestId: "from-client",
      user: "somebody",
      extra: { stream_interval: 2 },
    });
    expect(completion.id).toBe("cmpl-from-client");
    expect(completion.usage).toEqual({ promptTokens: prompt.length, completionTokens: greedy.length, cachedTokens: 0 });
    const [choice] = completion.choices;
    expect(choice!.tokenIds).toEqual(greedy);
    expect(choice!.bytes).toEqual(Uint8Array.from(greedy));
    for (const [i, logprob] of logprobs.entries()) expect(choice!.logprobs!.tokenLogprobs[i]).toBeCloseTo(logprob, 3);
    expect(choice!.promptLogprobs).toHaveLength(prompt.length);
  });

  it("several prompts and choices, bytes and text mixed", async () => {
    const { choices } = await client().complete({
      prompt: ["ab", Uint8Array.of(255, 0)],
      n: 2,
      maxTokens: 2,
      echo: true,
    });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(choices[0]!.text.startsWith("ab")).toBe(true);
    expect(choices[2]!.text.startsWith("\ufffd\u0000")).toBe(true);
  });

  it("structured outputs and stops of one byte string", async () => {
    const forced = await client().complete({
      prompt: "a",
      structuredOutputs: { choice: ["one two"] },
      stop: Uint8Array.of(32),
    });
    expect(forced.choices[0]).toMatchObject({ text: "one", finishReason: "stop", stopReason: " " });
    const object = await client().complete({ prompt: "a", structuredOutputs: { jsonObject: true }, maxTokens: 40 });
    expect(JSON.parse(object.choices[0]!.text)).toBeTypeOf("object");
  });

  it("streams exactly the bytes and the text of the whole answer", async () => {
    const options = { prompt: "stream", maxTokens: 80, temperature: 2, seed: 3 };
    const whole = (await client().complete(options)).choices[0]!;
    const stream = client().stream(options);
    const bytes = Buffer.concat(await collect(stream.bytes()));
    expect(bytes).toEqual(Buffer.from(whole.bytes));
    expect(await stream.end).toEqual({
      finishReason: "length",
      stopReason: null,
      usage: { promptTokens: 6, completionTokens: 80, cachedTokens: 0 },
    });
    expect((await collect(client().stream(options).text())).join("")).toBe(whole.text);
    const chunks = await collect(client().stream(options).toReadableStream());
    expect(Buffer.concat(chunks)).toEqual(bytes);
  });

  it("frees the slot when it leaves a stream, cancels it or aborts", async () => {
    const endless = { prompt: "a", maxTokens: 1_000_000 };
    const left = client().stream(endless);
    for await (const _ of left.bytes()) break;
    await expect(left.end).rejects.toMatchObject({ code: "stream_left" });
    await untilIdle(app());

    const reader = client().stream(endless).toReadableStream().getReader();
    await reader.read();
    await reader.cancel();
    await untilIdle(app());

    const controller = new AbortController();
    const aborted = client().stream(endless, { signal: controller.signal });
    await expect(
      (async () => {
        for await (const _ of aborted.bytes()) controller.abort(new Error("enough"));
      })(),
    ).rejects.toThrow();
    await untilIdle(app());
  });

  it("scores text, bytes, blobs and streams alike", async () => {
    const text = "It was the best of times, it was the worst of times.";
    const bytes = new TextEncoder().encode(text);
    const expected = await client().score(text);
    expect(expected).toMatchObject({ bytes: text.length, meanEntropy: undefined });
    for (const input of [bytes, new Blob([bytes]), new Blob([bytes]).stream()]) {
      expect(await client().score(input)).toEqual(expected);
    }
    for (const kind of ["logprobs", "entropy"] as const) {
      const iteration = client().scoreStream(bytes, kind);
      const values: number[] = [];
      let result = await iteration.next();
      for (; !result.done; result = await iteration.next()) {
        expect(result.value.offset).toBe(values.length);
        values.push(...result.value.values);
      }
      expect(values).toHaveLength(text.length);
      const total = values.reduce((sum, x) => sum + x, 0);
      if (kind === "logprobs") expect(total).toBeCloseTo(result.value.totalLogprob, 9);
      else expect(total / text.length / Math.LN2).toBeCloseTo(result.value.meanEntropy!, 9);
    }
  });

  it("tells models and readiness", async () => {
    expect((await client().models()).map(({ id }) => id)).toEqual(["mamba2-transformer"]);
    expect(await client().isReady()).toBe(true);
    expect(await client({ baseUrl: "http://127.0.0.1:9" }).isReady()).toBe(false);
  });

  it("errors carry what the server says", async () => {
    const error = await client()
      .complete({ prompt: "a", temperature: 9, requestId: "x" })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(MblmApiError);
    expect(error).toMatchObject({
      status: 400,
      code: "invalid_request",
      type: "invalid_request_error",
      param: "temperature",
      message: expect.stringContaining("temperature"),
      requestId: expect.stringMatching(/./),
    });
    await expect(collect(client().stream({ prompt: "a", model: "other" }).bytes())).rejects.toMatchObject({
      status: 404,
    });
    await expect(client().score("")).rejects.toMatchObject({ status: 400, param: "body" });
  });
});
