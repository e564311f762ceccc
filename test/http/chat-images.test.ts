import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { readGolden } from "../test-bundles.js";
import { ask, json, post, streamEvents } from "./api.js";
import { useApp } from "./test-app.js";

interface Answer {
  choices: { message: { content: string }; finish_reason: string }[];
  usage: { prompt_tokens: number; completion_tokens: number };
}
interface Chunk {
  choices: { delta: { role?: string; content?: string }; finish_reason: string | null }[];
  usage?: unknown;
}

const app = useApp("vqa");
const published = useApp("vqa-published");
const listing = useApp("vqa", { allowedImageHosts: "images.test" });
const blind = useApp("mamba2-transformer");
const { image, question } = readGolden("vqa").asked![0]!;
const url = `data:image/png;base64,${image}`;
const IMAGE = { type: "image_url", image_url: { url } } as const;
const TEXT = { type: "text", text: question } as const;
const asking = (...content: object[]) => [{ role: "user", content }];
const MESSAGES = asking(IMAGE, TEXT);

describe("questions about images in chat", () => {
  it.each([app, published])("are answered as by /v1/vqa, whole and streamed", async (server) => {
    const { answers } = await ask<{ answers: { answer: string }[] }>(server(), "/v1/vqa", { image, question });
    for (const messages of [MESSAGES, asking(TEXT, { ...IMAGE, image_url: { url, detail: "auto" } })]) {
      const body = { messages, temperature: 0 };
      const whole = await ask<Answer>(server(), "/v1/chat/completions", body);
      expect(whole.choices).toMatchObject([{ message: { content: answers[0]!.answer }, finish_reason: "stop" }]);
      expect(whole.usage.completion_tokens).toBe(1);
      const chunks = await streamEvents<Chunk>(server(), "/v1/chat/completions", {
        ...body,
        stream_options: { include_usage: true },
      });
      expect(chunks.pop()).toMatchObject({ choices: [], usage: { prompt_tokens: whole.usage.prompt_tokens } });
      expect(chunks.map(({ choices }) => choices[0]!.delta.content ?? "").join("")).toBe(answers[0]!.answer);
      expect(chunks[0]!.choices[0]!.delta.role).toBe("assistant");
      expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("stop");
    }
  });

  it("are sampled among the model's answers when they are asked so", async () => {
    const { data } = await json<{ data: [{ vqa: { answers: string[] } }] }>(await fetch(`${app().url}/v1/models`));
    const body = { messages: MESSAGES, temperature: 2, n: 40, seed: 5 };
    const once = await ask<Answer>(app(), "/v1/chat/completions", body);
    const words = once.choices.map(({ message }) => message.content);
    expect(new Set(words).size).toBeGreaterThan(1);
    for (const word of words) expect(data[0].vqa.answers).toContain(word);
    const again = await ask<Answer>(app(), "/v1/chat/completions", body);
    expect(again.choices.map(({ message }) => message.content)).toEqual(words);
  });

  it("come from the official client, too", async () => {
    const client = new OpenAI({ baseURL: `${app().url}/v1`, apiKey: "none" });
    const answer = await client.chat.completions.create({
      model: "vqa",
      temperature: 0,
      messages: [{ role: "user", content: [TEXT, IMAGE] }],
    });
    const { answers } = await ask<{ answers: { answer: string }[] }>(app(), "/v1/vqa", { image, question });
    expect(answer.choices[0]!.message.content).toBe(answers[0]!.answer);
  });

  it("leave conversations without images alone", async () => {
    const body = { messages: [{ role: "user", content: "Hi" }], max_tokens: 3 };
    expect((await ask<Answer>(app(), "/v1/chat/completions", body)).usage.completion_tokens).toBe(3);
  });

  const remote = (to: string) => asking({ type: "image_url", image_url: { url: to } }, TEXT);
  it.each<[param: string, body: object, message: RegExp]>([
    ["messages", { messages: asking(IMAGE) }, /empty/],
    ["messages", { messages: asking(IMAGE, IMAGE, TEXT) }, /one image/],
    ["messages", { messages: [{ role: "system", content: "Be brief." }, ...MESSAGES] }, /one user message/],
    ["messages", { messages: [{ role: "assistant", content: [IMAGE, TEXT] }] }, /one user message/],
    ["messages", { messages: asking(IMAGE, { type: "text", text: "x".repeat(206) }) }, /205/],
    ["messages", { messages: remote("https://example.org/a.png") }, /must be a data: URL/],
    ["messages", { messages: remote("http://127.0.0.1/a.png") }, /must be a data: URL/],
    ["messages", { messages: remote("file:///etc/passwd") }, /must be a data: URL/],
    ["messages", { messages: remote("data:image/png;base64,AAAA") }, /no JPEG, PNG or WebP/],
    ["messages", { messages: remote("data:image/svg+xml;base64,AAAA") }, /data:image/],
    [
      "messages.0.content.0.image_url.url",
      { messages: asking({ type: "image_url", image_url: {} }, TEXT) },
      /is required/,
    ],
    ["logprobs", { messages: MESSAGES, logprobs: true }, /not supported/],
    ["stop", { messages: MESSAGES, stop: "a" }, /not supported/],
    ["repetition_penalty", { messages: MESSAGES, repetition_penalty: 2 }, /not supported/],
    ["structured_outputs", { messages: MESSAGES, structured_outputs: { choice: ["a"] } }, /not supported/],
    ["stream_options", { messages: MESSAGES, stream_options: {} }, /stream/],
    ["max_tokens", { messages: MESSAGES, max_tokens: 0 }, /./],
  ])("are refused: %s %#", async (param, body, message) => {
    for (const stream of [false, true]) {
      const response = await post(app(), "/v1/chat/completions", {
        ...body,
        ...(param === "stream_options" ? {} : { stream }),
      });
      const { error } = await json(response);
      expect([response.status, error.param]).toEqual([400, param]);
      expect(error.message).toMatch(message);
    }
  });

  it("may name images on listed hosts, and on no others", async () => {
    const body = { messages: remote("https://elsewhere.test/a.png") };
    const { error } = await json(await post(listing(), "/v1/chat/completions", body));
    expect(error).toMatchObject({
      param: "messages",
      message: expect.stringContaining("elsewhere.test is none of the hosts"),
    });
  });

  it("are refused by a model that sees no images", async () => {
    const response = await post(blind(), "/v1/chat/completions", { messages: MESSAGES });
    expect(response.status).toBe(400);
    expect((await json(response)).error).toMatchObject({
      param: "messages",
      message: expect.stringContaining("not trained to answer questions about images"),
    });
  });
});
