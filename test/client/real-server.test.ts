import { describe, expect, it } from "vitest";
import { MblmApiError } from "../../src/client/errors.js";
import { MblmClient } from "../../src/client/mblm-client.js";
import type { UploadProgress } from "../../src/client/upload.js";
import { ask } from "../http/api.js";
import { type TestApp, untilIdle, useApp } from "../http/test-app.js";
import { readGolden } from "../test-bundles.js";
import { collect, failure, joined } from "./scripted-server.js";

const app = useApp("mamba2-transformer");
const withEos = useApp("with-eos");
const seeing = useApp("vqa");
const clientOf = (target: TestApp): MblmClient => new MblmClient({ baseUrl: target.url });
const golden = readGolden("mamba2-transformer");

describe("completions", () => {
  it("are PyTorch's bytes, at once and streamed", async () => {
    for (const { prompt, greedy } of golden.cases) {
      const request = { prompt: Uint8Array.from(prompt), maxTokens: greedy.length, temperature: 0 };
      const { choices, usage } = await clientOf(app()).complete(request);
      expect([...choices[0]!.bytes]).toEqual(greedy);
      expect(usage).toMatchObject({ promptTokens: prompt.length, completionTokens: greedy.length });
      const stream = clientOf(app()).streamBytes(request);
      expect(await joined(stream)).toEqual(greedy);
      expect(stream.result).toMatchObject({ finishReason: "length", usage: { completionTokens: greedy.length } });
    }
  });

  it("of an uploaded prompt are the same, from any source, with progress", async () => {
    const prompt = Uint8Array.from({ length: 150_000 }, (_, i) => (i * i) % 251);
    const options = { maxTokens: 20, temperature: 0, stop: "[", cacheSalt: "upload", logitBias: { 93: -5 } };
    const whole = await clientOf(app()).complete({ prompt, ...options });
    async function* parts(): AsyncGenerator<Uint8Array> {
      for (let start = 0; start < prompt.length; start += 9999) yield prompt.subarray(start, start + 9999);
    }
    for (const source of [prompt, new Blob([prompt]), parts(), new Blob([prompt]).stream()]) {
      const reports: UploadProgress[] = [];
      const onProgress = (progress: UploadProgress): void => void reports.push(progress);
      const stream = clientOf(app()).streamUpload(source, { ...options, onProgress, progressSeconds: 0.1 });
      expect(await joined(stream)).toEqual([...whole.choices[0]!.bytes]);
      expect(stream.result).toMatchObject({ finishReason: "length", usage: { promptTokens: prompt.length } });
      expect(reports.at(-1)).toMatchObject({ receivedBytes: 150_000, prefilledBytes: 150_000 });
      const isSized = source instanceof Uint8Array || source instanceof Blob;
      expect(reports[0]!.totalBytes).toBe(isSized ? 150_000 : undefined);
    }
    const refused = clientOf(app()).streamUpload(prompt, { maxTokens: -1 });
    expect(await failure(joined(refused))).toMatchObject({ status: 400, param: "max_tokens" });
    await untilIdle(app());
  });

  it("as text are the same, at once and streamed, in whole characters", async () => {
    const request = { prompt: "Grüße", maxTokens: 200, seed: 3, utf8: true };
    const { choices } = await clientOf(app()).complete(request);
    const stream = clientOf(app()).streamText(request);
    const pieces = await collect(stream);
    expect(pieces.join("")).toBe(choices[0]!.text);
    expect(pieces.join("")).not.toContain("\ufffd");
    expect(new TextEncoder().encode(pieces.join(""))).toEqual(choices[0]!.bytes);
    expect(stream.result!.systemFingerprint).toMatch(/./);
  });

  it("of several prompts, several times each, with log-probs", async () => {
    const request = {
      prompt: [Uint8Array.of(200, 10), Uint8Array.of(65)],
      n: 2,
      maxTokens: 6,
      seed: 1,
      logprobs: 2,
      promptLogprobs: 1,
    };
    const whole = await clientOf(app()).complete(request);
    const stream = clientOf(app()).streamChoices(request);
    const pieces = await collect(stream);
    for (const choice of whole.choices) {
      const own = pieces.filter(({ index }) => index === choice.index);
      expect(own.flatMap(({ bytes }) => [...bytes])).toEqual([...choice.bytes]);
      expect(own.flatMap(({ logprobs }) => logprobs?.tokenLogprobs ?? [])).toEqual(choice.logprobs!.tokenLogprobs);
      expect(own[0]!.promptLogprobs).toEqual(choice.promptLogprobs);
      expect(own[0]!.promptTokenIds).toEqual(choice.promptTokenIds);
    }
    expect(stream.result!.usage).toMatchObject({ promptTokens: 3, completionTokens: 24 });
    expect(stream.result!.choices).toHaveLength(4);
  });

  it("take every option", async () => {
    const { choices } = await clientOf(app()).complete({
      prompt: "ab",
      model: app().engine.info.id,
      maxTokens: 8,
      minTokens: 1,
      temperature: 1.5,
      topP: 0.9,
      topK: 50,
      minP: 0.001,
      repetitionPenalty: 1.1,
      presencePenalty: 0.1,
      frequencyPenalty: 0.1,
      logitBias: { 10: -100 },
      allowedTokenIds: Uint8Array.of(97, 98, 99),
      seed: 4,
      stop: ["zz", Uint8Array.of(255)],
      stopTokenIds: [7],
      ignoreEos: true,
      includeStop: true,
      structuredOutputs: { regex: "[abc]{8}" },
      utf8: true,
      echo: true,
      truncatePromptTokens: 1,
      cacheSalt: "s",
      priority: 2,
      requestId: "mine",
      user: "me",
      logprobs: 1,
      promptLogprobs: 1,
      n: 1,
      bestOf: 2,
    });
    expect(choices[0]!.text).toMatch(/^b[abc]{8}$/);
    expect(new TextDecoder().decode(choices[0]!.bytes)).toBe(choices[0]!.text);
  });

  it("take a schema in OpenAI's form", async () => {
    const schema = { enum: ["yes", "no"] };
    const stream = clientOf(app()).streamText({
      prompt: "?",
      responseFormat: { type: "json_schema", jsonSchema: { name: "answer", schema } },
      streamInterval: 2,
    });
    expect(["yes", "no"]).toContain(JSON.parse((await collect(stream)).join("")));
  });

  it("leave special ids out of the bytes", async () => {
    const request = { prompt: "a", allowedTokenIds: [256], ignoreEos: true, maxTokens: 3 };
    const { choices } = await clientOf(withEos()).complete(request);
    expect(choices[0]).toMatchObject({ tokenIds: [256, 256, 256], bytes: new Uint8Array(), text: "" });
    expect(await collect(clientOf(withEos()).streamBytes(request))).toEqual([]);
  });

  it("end with a stop of bytes", async () => {
    const { prompt, greedy } = golden.cases.at(-1)!;
    const stop = Uint8Array.from(greedy.slice(3, 5));
    const stream = clientOf(app()).streamBytes({
      prompt: Uint8Array.from(prompt),
      maxTokens: greedy.length,
      temperature: 0,
      stop,
    });
    const found = await joined(stream);
    expect(found).toEqual(greedy.slice(0, found.length));
    expect(found.length).toBeLessThanOrEqual(3);
    expect(stream.result).toMatchObject({ finishReason: "stop" });
  });
});

describe("a refusal names the field", () => {
  it.each([
    [{ temperature: 9 }, { status: 400, param: "temperature", code: "invalid_request" }],
    [{ extra: { colour: "red" } }, { status: 400, param: "colour" }],
    [{ model: "other" }, { status: 404, code: "model_not_found" }],
  ])("%j", async (fields, expected) => {
    for (const call of [
      () => clientOf(app()).complete({ prompt: "a", ...fields }),
      () => collect(clientOf(app()).streamText({ prompt: "a", ...fields })),
    ]) {
      const error = await failure(call());
      expect(error).toBeInstanceOf(MblmApiError);
      expect(error).toMatchObject({ ...expected, requestId: expect.stringMatching(/./) });
    }
  });
});

describe("the server's slot is free again", () => {
  const long = { prompt: "a", maxTokens: 1_000_000 };

  it("when the loop is left", async () => {
    for await (const piece of clientOf(app()).streamBytes(long)) {
      expect(piece.length).toBeGreaterThan(0);
      break;
    }
    await untilIdle(app());
  });

  it("when the signal aborts", async () => {
    const controller = new AbortController();
    const pending = failure(clientOf(app()).complete(long, { signal: controller.signal }));
    await expect.poll(async () => (await app().engine.stats()).numRunning).toBe(1);
    controller.abort();
    expect(await pending).toMatchObject({ name: "AbortError" });
    await untilIdle(app());
  });

  it("when the web stream is cancelled", async () => {
    const reader = clientOf(app()).streamText(long).toReadableStream().getReader();
    await reader.read();
    await reader.cancel();
    await untilIdle(app());
  });
});

describe("scores", () => {
  const bytes = Uint8Array.from(golden.scored.ids);

  it("are PyTorch's, at once and streamed, from every kind of source", async () => {
    const stream = clientOf(app()).scoreStream(bytes, { return: "logprobs" });
    const numbers = (await collect(stream)).flatMap(({ logprobs }) => [...logprobs]);
    for (const [i, logprob] of golden.scored.logprobs.entries()) expect(numbers[i]).toBeCloseTo(logprob, 3);
    expect(numbers).toHaveLength(bytes.length);
    async function* generator() {
      for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
    }
    const blob = new Blob([bytes]);
    for (const source of [bytes, bytes.buffer, blob, blob.stream() as ReadableStream<Uint8Array>, generator()]) {
      const summary = await clientOf(app()).score(source);
      expect(summary).toMatchObject({ bytes: bytes.length, totalLogprob: stream.result!.totalLogprob });
    }
  });

  it("have entropies", async () => {
    const stream = clientOf(app()).scoreStream(bytes, { return: "entropy" });
    const numbers = (await collect(stream)).flatMap(({ entropy }) => [...entropy]);
    const mean = numbers.reduce((sum, x) => sum + x, 0) / numbers.length / Math.LN2;
    expect(stream.result!.meanEntropy).toBeCloseTo(mean, 9);
  });

  it("of nothing are refused", async () => {
    expect(await failure(clientOf(app()).score(new Uint8Array()))).toMatchObject({ status: 400, param: "body" });
  });
});

it("service calls", async () => {
  const client = clientOf(withEos());
  const { id, vocabularySize } = withEos().engine.info;
  expect(await client.models()).toMatchObject([{ id, vocabularySize, ownedBy: "mblm-server" }]);
  expect(await client.health()).toEqual({ isReady: true, status: "ready" });
  expect(await client.tokenize("é")).toEqual([0xc3, 0xa9]);
  expect(await client.detokenize(Uint8Array.of(0xc3, 0xa9))).toBe("é");
});

describe("questions about an image", () => {
  const { image } = readGolden("vqa").asked![0]!;
  const file = Uint8Array.from(Buffer.from(image, "base64"));

  it("are answered as over the wire, from any kind of source", async () => {
    const client = clientOf(seeing());
    const questions = ["Is it red?", "what"];
    const wire = await ask<{ answers: { answer: string; probability: number; top_answers: object[] }[] }>(
      seeing(),
      "/v1/vqa",
      { image, questions, top_answers: 2 },
    );
    for (const source of [file, file.buffer, new Blob([file])]) {
      const { answers, usage, timings, ...rest } = await client.vqa(source, questions, { topAnswers: 2 });
      expect(answers.map(({ answer, probability }) => ({ answer, probability }))).toEqual(
        wire.answers.map(({ answer, probability }) => ({ answer, probability })),
      );
      expect(answers.map(({ topAnswers }) => topAnswers)).toEqual(wire.answers.map(({ top_answers }) => top_answers));
      expect(rest.image).toMatchObject({ format: "png", bytes: file.length });
      expect(usage.completionTokens).toBe(2);
      expect(timings.imagePrefillMs).toBeGreaterThan(0);
      expect(rest.requestId).toMatch(/./);
    }
    expect((await client.vqa(file, "what")).answers).toHaveLength(1);
  });

  it("tell what is wrong with them", async () => {
    const client = clientOf(seeing());
    expect(await failure(client.vqa(file.subarray(0, 50), "what"))).toMatchObject({ status: 400, param: "image" });
    expect(await failure(client.vqa(file, []))).toBeInstanceOf(TypeError);
    expect(await failure(client.vqa("x" as unknown as Blob, "what"))).toBeInstanceOf(TypeError);
    expect(await failure(clientOf(app()).vqa(file, "what"))).toMatchObject({ status: 400, param: "model" });
  });

  it("are known to be possible from the list of models", async () => {
    const [model] = await clientOf(seeing()).models();
    expect(model!.vqa).toMatchObject({ maxQuestionBytes: 205, order: "image_question_answer", image: { width: 62 } });
    expect((await clientOf(app()).models())[0]!.vqa).toBeUndefined();
  });
});
