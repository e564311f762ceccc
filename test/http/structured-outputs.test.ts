import { Ajv2020 } from "ajv/dist/2020.js";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { complete, post, stream } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const withEos = useApp("with-eos");
const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { enum: ["a", "b"] }, maxItems: 3 },
  },
  required: ["name", "age"],
  additionalProperties: false,
};
const isValid = new Ajv2020().compile(SCHEMA);

/** Outputs of one constraint over many seeds and temperatures. */
async function outputs(body: object, count = 30): Promise<string[]> {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, seed) =>
      complete(app(), { prompt: "a", seed, temperature: seed % 3, max_tokens: 60, ...body }),
    ),
  );
  return answers.map(({ choices }) => choices[0]!.text);
}

describe("structured_outputs", () => {
  it("regex: every output is a whole match", async () => {
    for (const regex of [
      "[a-z]+",
      "(\\d{1,3}\\.){3}\\d{1,3}",
      "(yes|no)( (yes|no))*",
      "[^\\x00-\\x7f]{2,5}",
      "[A-F0-9]{4,}",
    ]) {
      for (const text of await outputs({ structured_outputs: { regex } })) {
        expect(text).toMatch(new RegExp(`^(?:${regex})$`, "u"));
      }
    }
  });

  it("an output is complete at every length limit that allows one", async () => {
    const regex = '\\{"n": \\d+(, "m": "[a-z€]*")?\\}';
    for (let max_tokens = 8; max_tokens < 40; max_tokens++) {
      const body = { structured_outputs: { regex }, max_tokens };
      for (const text of await outputs(body, 3)) {
        expect(text).toMatch(new RegExp(`^(?:${regex})$`, "u"));
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(max_tokens);
      }
    }
  });

  it("choice, json and json_object", async () => {
    const choice = ["red", "green", "blue", "blueish"];
    const chosen = new Set(await outputs({ structured_outputs: { choice } }));
    expect(choice).toEqual(expect.arrayContaining([...chosen]));
    expect(chosen.size).toBeGreaterThan(1);
    for (const text of await outputs({ structured_outputs: { json: SCHEMA } })) {
      expect(isValid(JSON.parse(text)), text).toBe(true);
    }
    for (const text of await outputs({ structured_outputs: { json: JSON.stringify(SCHEMA) } }, 3)) {
      expect(isValid(JSON.parse(text)), text).toBe(true);
    }
    for (const text of await outputs({ structured_outputs: { json_object: true } })) {
      expect(JSON.parse(text)).toBeTypeOf("object");
    }
  });

  it("response_format through the official client", async () => {
    const client = new OpenAI({ baseURL: `${app().url}/v1`, apiKey: "none" });
    const answer = await client.chat.completions.create({
      model: "mamba2-transformer",
      messages: [{ role: "user", content: "Who?" }],
      max_tokens: 80,
      response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema: SCHEMA } },
    });
    expect(isValid(JSON.parse(answer.choices[0]!.message.content!))).toBe(true);
    expect(answer.choices[0]!.finish_reason).toMatch(/stop|length/);
  });

  it("ends where the model goes on with something else, and reports stop", async () => {
    const body = {
      prompt: "a",
      max_tokens: 500,
      temperature: 2,
      seed: 5,
      structured_outputs: { regex: "[\\x00-\\x7f]*" },
    };
    const { choices } = await complete(app(), body);
    expect(choices[0]!.finish_reason).toBe("stop");
    expect(choices[0]!.text).toMatch(/^\p{ASCII}*$/u);
  });

  it("min_tokens keeps a match going", async () => {
    const body = { structured_outputs: { regex: "[a-z]*" }, min_tokens: 40, max_tokens: 60 };
    for (const text of await outputs(body)) expect(text).toMatch(/^[a-z]{40,60}$/);
  });

  it("streams what it answers whole, log-probs included", async () => {
    const body = { prompt: "a", seed: 3, max_tokens: 60, logprobs: 2, structured_outputs: { json: SCHEMA } };
    const whole = (await complete(app(), body)).choices[0]!;
    const pieces = (await stream(app(), body)).flatMap(({ choices }) => choices);
    expect(pieces.map(({ text }) => text).join("")).toBe(whole.text);
    expect(pieces.flatMap(({ logprobs }) => logprobs?.token_logprobs ?? [])).toEqual(whole.logprobs!.token_logprobs);
  });

  it("a model's end id ends a match and nothing else", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const body = { prompt: "a", seed, temperature: 2, max_tokens: 50, structured_outputs: { regex: "ab+" } };
      const answer = await complete(withEos(), { ...body, logit_bias: { "256": 4 }, return_token_ids: true });
      expect(answer.choices[0]!.text).toMatch(/^ab+$/);
      expect(answer.choices[0]!.token_ids).not.toContain(256);
    }
  });

  it("a byte that ends the output is no part of a match", async () => {
    const body = { prompt: "a", max_tokens: 9, structured_outputs: { regex: "[ab]c" }, stop_token_ids: [97] };
    expect((await complete(app(), body)).choices[0]!.text).toBe("bc");
    const impossible = await post(app(), "/v1/completions", { ...body, structured_outputs: { regex: "ac" } });
    expect(impossible.status).toBe(400);
    expect(await impossible.json()).toMatchObject({ error: { param: "structured_outputs.regex" } });
  });

  it("allowed_token_ids narrow a match", async () => {
    const body = { structured_outputs: { regex: "[a-z]{5}" }, allowed_token_ids: [...Buffer.from("xyz")] };
    for (const text of await outputs(body, 5)) expect(text).toMatch(/^[xyz]{5}$/);
  });
});
