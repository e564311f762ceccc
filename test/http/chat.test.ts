import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { ask, complete, json, post, streamEvents } from "./api.js";
import { useApp } from "./test-app.js";

interface Answer {
  object: string;
  choices: {
    message: { role: string; content: string };
    finish_reason: string;
    logprobs: { content: { token: string; logprob: number; bytes: number[]; top_logprobs: unknown[] }[] } | null;
    token_ids?: number[];
  }[];
  usage: { prompt_tokens: number };
}
interface Chunk {
  object: string;
  choices: { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[];
  usage?: unknown;
}

const app = useApp("mamba2-transformer");
const MESSAGES = [
  { role: "system", content: "Be brief." },
  {
    role: "user",
    content: [
      { type: "text", text: "Who " },
      { type: "text", text: "are you?" },
    ],
  },
];
const RENDERED = "system: Be brief.\n\nuser: Who are you?\n\nassistant:";

describe("POST /v1/chat/completions", () => {
  it("continues the conversation's text by the model's template", async () => {
    const body = { max_tokens: 30, seed: 4, return_token_ids: true };
    const chat = await ask<Answer>(app(), "/v1/chat/completions", { ...body, messages: MESSAGES });
    const plain = await complete(app(), { ...body, prompt: RENDERED, stop: ["\n\nuser:", "\n\nsystem:"] });
    expect(chat.object).toBe("chat.completion");
    expect(chat.choices[0]!.message).toEqual({ role: "assistant", content: plain.choices[0]!.text, refusal: null });
    expect(chat.choices[0]!.token_ids).toEqual(plain.choices[0]!.token_ids);
    expect(chat.usage.prompt_tokens).toBe(RENDERED.length);
  });

  it("ends at the template's stop and the request's", async () => {
    for (const [text, expected] of [
      ["Hello.\n\nuser: and now?", "Hello."],
      ["Hello. Bye.", "Hello"],
    ]) {
      const body = { messages: MESSAGES, structured_outputs: { choice: [text] }, stop: ". B", max_tokens: 99 };
      const { choices } = await ask<Answer>(app(), "/v1/chat/completions", body);
      expect(choices[0]!.message.content).toBe(expected);
      expect(choices[0]!.finish_reason).toBe("stop");
    }
  });

  it("a stream says what the whole answer says, the role first", async () => {
    const body = { messages: MESSAGES, max_completion_tokens: 40, n: 2, seed: 1 };
    const whole = await ask<Answer>(app(), "/v1/chat/completions", body);
    const chunks = await streamEvents<Chunk>(app(), "/v1/chat/completions", {
      ...body,
      stream_options: { include_usage: true },
    });
    expect(chunks.pop()).toMatchObject({ choices: [], usage: whole.usage });
    for (const [i, choice] of whole.choices.entries()) {
      const own = chunks.flatMap(({ choices }) => choices).filter(({ index }) => index === i);
      expect(own[0]!.delta.role).toBe("assistant");
      expect(own.map(({ delta }) => delta.content ?? "").join("")).toBe(choice.message.content);
      expect(own.map(({ finish_reason }) => finish_reason).filter(Boolean)).toEqual([choice.finish_reason]);
    }
  });

  it("log-probs have the chat form, with bytes", async () => {
    const body = { messages: MESSAGES, max_tokens: 20, temperature: 2, seed: 1, logprobs: true, top_logprobs: 2 };
    const { choices } = await ask<Answer>(app(), "/v1/chat/completions", { ...body, return_token_ids: true });
    const { content } = choices[0]!.logprobs!;
    expect(content.flatMap(({ bytes }) => bytes)).toEqual(choices[0]!.token_ids);
    for (const { top_logprobs, logprob } of content) {
      expect(top_logprobs).toHaveLength(2);
      expect(logprob).toBeLessThanOrEqual(0);
    }
  });

  it("the official client creates and streams", async () => {
    const client = new OpenAI({ baseURL: `${app().url}/v1`, apiKey: "none" });
    const body = {
      model: "mamba2-transformer",
      messages: [{ role: "user" as const, content: "Hi" }],
      max_tokens: 20,
      seed: 8,
    };
    const whole = await client.chat.completions.create(body);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    expect(text).toBe(whole.choices[0]!.message.content);
  });

  it("the official client's own answer goes on as a message", async () => {
    const client = new OpenAI({ baseURL: `${app().url}/v1`, apiKey: "none" });
    const body = { model: "mamba2-transformer", max_tokens: 20, seed: 8 };
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "Hi" }];
    const { message } = (await client.chat.completions.create({ ...body, messages })).choices[0]!;
    messages.push(message, { role: "user", content: "And?" });
    const again = await client.chat.completions.create({ ...body, messages });
    const plain = messages.map(({ role, content }) => ({ role, content }));
    const expected = await ask<Answer>(app(), "/v1/chat/completions", { ...body, messages: plain });
    expect(again.choices[0]!.message.content).toBe(expected.choices[0]!.message.content);
    expect(again.usage!.prompt_tokens).toBe(expected.usage.prompt_tokens);
  });

  const told = (...content: object[]) => ({ messages: [{ role: "user", content }] });
  it.each<[param: string, message: string, body: object]>([
    ["messages", "messages.0.content: must be a string or a list", { messages: [{ role: "user", content: 5 }] }],
    ["messages", "messages.0.content.0.type: must be one of text, image_url", told({ type: "input_text", text: "x" })],
    ["messages", "messages.0.content.1.type: must be one of", told({ type: "text", text: "x" }, {})],
    ["messages.0.content.0.text", "messages.0.content.0.text: is required", told({ type: "text" })],
    [
      "messages.0.content.0.url",
      "messages.0.content.0.url: no such field",
      told({ type: "text", text: "x", url: "x" }),
    ],
    [
      "messages",
      "messages.0.content.0.image_url.detail: must be auto",
      told({ type: "image_url", image_url: { url: "data:,", detail: "high" } }),
    ],
    ["messages", "messages.0.role: must be one of system, developer", { messages: [{ role: "tool", content: "a" }] }],
    ["messages", "messages.0.refusal: is not supported", { messages: [{ role: "user", content: "a", refusal: "b" }] }],
    [
      "messages.0.content",
      "messages.0.content: has half of a surrogate pair",
      { messages: [{ role: "user", content: "half \ud800 a pair" }] },
    ],
    [
      "messages.0.name",
      "messages.0.name: has half of a surrogate pair",
      { messages: [{ role: "user", content: "a", name: "\ud800" }] },
    ],
  ])("names %s: %s", async (param, message, body) => {
    const response = await post(app(), "/v1/chat/completions", body);
    const { error } = await json(response);
    expect([response.status, error.param, error.message]).toEqual([400, param, expect.stringContaining(message)]);
  });

  const REFUSED: [param: string, body: object][] = [
    ["messages", {}],
    ["messages", { messages: [] }],
    ["messages", { messages: [{ role: "robot", content: "a" }] }],
    ["messages", { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] }],
    ["max_tokens", { messages: MESSAGES, max_tokens: 0 }],
    ["max_tokens", { messages: MESSAGES, max_tokens: 1, max_completion_tokens: 2 }],
    ["top_logprobs", { messages: MESSAGES, top_logprobs: 2 }],
    ["tools", { messages: MESSAGES, tools: [] }],
    ["n", { messages: MESSAGES, n: 0 }],
  ];
  it.each(REFUSED)("refuses %s %j", async (param, body) => {
    const response = await post(app(), "/v1/chat/completions", body);
    expect(response.status).toBe(400);
    expect((await json(response)).error.param).toMatch(new RegExp(`^${param}`));
  });
});

describe("a model with a position table", () => {
  const bounded = useApp("transformer");

  it("blames the messages that do not fit", async () => {
    const body = { messages: [{ role: "user", content: "x".repeat(100) }], max_tokens: 1 };
    const { error } = await json(await post(bounded(), "/v1/chat/completions", body));
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "messages" });
  });
});
