import { describe, expect, it } from "vitest";
import { ask, json, post } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const withEos = useApp("with-eos");

describe("the tokenizer routes", () => {
  it("tokens are the bytes of the text, and back", async () => {
    for (const text of ["", "abc", "héllo €😀\n", "\u0000\ufeffx"]) {
      const answer = await ask<{ tokens: number[]; count: number }>(app(), "/tokenize", { prompt: text });
      expect(answer).toMatchObject({
        tokens: [...Buffer.from(text)],
        count: Buffer.byteLength(text),
        token_strs: null,
      });
      expect(await ask(app(), "/detokenize", { tokens: answer.tokens })).toEqual({ prompt: text });
    }
    const spelled = await ask(app(), "/tokenize", { prompt: "aé", return_token_strs: true });
    expect(spelled).toMatchObject({ token_strs: ["a", "bytes:\\xc3", "bytes:\\xa9"] });
  });

  it("a conversation is tokenized as it is continued", async () => {
    const messages = [{ role: "user", content: "Hi" }];
    const rendered = await ask<{ tokens: number[] }>(app(), "/tokenize", { messages });
    expect(Buffer.from(rendered.tokens).toString()).toBe("user: Hi\n\nassistant:");
    const without = await ask<{ tokens: number[] }>(app(), "/tokenize", { messages, add_generation_prompt: false });
    expect(Buffer.from(without.tokens).toString()).toBe("user: Hi\n\n");
  });

  it("the end token's text is its one id, and back", async () => {
    const info = await json<{ eos_token: string }>(await fetch(`${withEos().url}/tokenizer_info`));
    expect(info).toMatchObject({ tokenizer_class: "ByteTokenizer", vocab_size: 257, eos_token: "<|eos|>" });
    expect(await ask(withEos(), "/tokenize", { prompt: info.eos_token })).toMatchObject({ tokens: [256] });
    expect(await ask(withEos(), "/detokenize", { tokens: [256] })).toEqual({ prompt: "<|eos|>" });
    expect(await (await fetch(`${app().url}/tokenizer_info`)).json()).toMatchObject({ eos_token: null });
  });

  it("refuses what is no token, and both or neither of prompt and messages", async () => {
    for (const [path, body, param] of [
      ["/detokenize", { tokens: [256] }, "tokens"],
      ["/detokenize", { tokens: ["a"] }, "tokens"],
      ["/detokenize", {}, "tokens"],
      ["/tokenize", {}, "prompt"],
      ["/tokenize", { prompt: "a", messages: [{ role: "user", content: "b" }] }, "prompt"],
      ["/tokenize", { prompt: "\ud800" }, "prompt"],
      ["/tokenize", { prompt: "a", model: "other" }, "model"],
    ] as const) {
      const response = await post(app(), path, body);
      expect(response.status).toBe(param === "model" ? 404 : 400);
      expect((await json(response)).error.param).toBe(param);
    }
  });
});
