import { describe, expect, it } from "vitest";
import { postCompletion, useApp } from "./test-app.js";

const app = useApp("with-eos"); // vocabulary 257

/** Every field, just outside its bounds or of the wrong type; the error must name it. */
const REFUSED: [field: string, body: unknown][] = [
  ["prompt", { prompt: 7 }],
  ["prompt", { prompt: [257] }],
  ["prompt", { prompt: [-1] }],
  ["prompt", { prompt: "half \ud800 a pair" }],
  ["prompt", { prompt: ["a", 1] }],
  ["prompt", { prompt: [[1, 2], "a", [300]] }],
  ["max_tokens", { max_tokens: -1 }],
  ["max_tokens", { max_tokens: 1.5 }],
  ["max_tokens", { max_tokens: "5" }],
  ["max_tokens", { max_tokens: 2 ** 20 + 1 }],
  ["min_tokens", { min_tokens: -1 }],
  ["min_tokens", { min_tokens: 17 }],
  ["temperature", { temperature: -0.01 }],
  ["temperature", { temperature: 2.01 }],
  ["top_p", { top_p: 0 }],
  ["top_p", { top_p: 1.01 }],
  ["top_k", { top_k: -2 }],
  ["min_p", { min_p: 1.01 }],
  ["repetition_penalty", { repetition_penalty: 0.009 }],
  ["repetition_penalty", { repetition_penalty: 5e-324 }],
  ["presence_penalty", { presence_penalty: 2.01 }],
  ["frequency_penalty", { frequency_penalty: -2.01 }],
  ["logit_bias", { logit_bias: { "65": 101 } }],
  ["logit_bias", { logit_bias: { "257": 1 } }],
  ...["a", "A", "", " ", "-1", "65.5", "+65", "065", "0x41", "6.5e1", "1e1", "65 ", "999999", "NaN"].map(
    (key): [string, unknown] => ["logit_bias", { logit_bias: { [key]: 1 } }],
  ),
  ...[null, true, "1", [1], { a: 1 }].map((value): [string, unknown] => [
    "logit_bias",
    { logit_bias: { "65": value } },
  ]),
  ["logit_bias", '{ "logit_bias": { "65": 1e308 } }'],
  ["logit_bias", { logit_bias: [1] }],
  ["seed", { seed: 0.5 }],
  ["seed", { seed: 2 ** 53 }],
  ["stop", { stop: "" }],
  ["stop", { stop: ["a", "b", "c", "d", "e"] }],
  ["stop", { stop: [[256]] }],
  ["stop", { stop: ["\udc00"] }],
  ["stop_token_ids", { stop_token_ids: [257] }],
  ["n", { n: 0 }],
  ["n", { n: 129 }],
  ["n", { prompt: Array(100).fill("a"), n: 2 }],
  ["logprobs", { logprobs: 21 }],
  ["stream", { stream: "yes" }],
  ["stream_options", { stream_options: { include_usage: true } }],
  ["stream_options.colour", { stream: true, stream_options: { colour: 1 } }],
  ["echo", { echo: 1 }],
  ["min_tokens", { min_tokens: 2, max_tokens: 1 }],
  ["top_k", { top_k: 65537 }],
  ["min_p", { min_p: -0.01 }],
  ["repetition_penalty", { repetition_penalty: 10.01 }],
  ["presence_penalty", { presence_penalty: -2.01 }],
  ["frequency_penalty", { frequency_penalty: 2.01 }],
  ["logit_bias", { logit_bias: { "65": -101 } }],
  ["allowed_token_ids", { allowed_token_ids: [] }],
  ["allowed_token_ids", { allowed_token_ids: [257] }],
  ["stop", { stop: [[]] }],
  ["stop", { stop: "x".repeat(1025) }],
  ["stop_token_ids", { stop_token_ids: Array(65).fill(1) }],
  ["ignore_eos", { ignore_eos: 1 }],
  ["include_stop_str_in_output", { include_stop_str_in_output: "yes" }],
  ["logprobs", { logprobs: true }],
  ["prompt_logprobs", { prompt_logprobs: 21 }],
  ["prompt_logprobs", { prompt_logprobs: -1 }],
  ["truncate_prompt_tokens", { truncate_prompt_tokens: -2 }],
  ["stream_interval", { stream_interval: 0 }],
  ["cache_salt", { cache_salt: "" }],
  ["priority", { priority: 0.5 }],
  ["request_id", { request_id: "a b" }],
  ["utf8", { utf8: "yes" }],
  ["stop", { utf8: true, stop: [[0x80]] }],
  ["stop_token_ids", { utf8: true, stop_token_ids: [200] }],
  ["structured_outputs", { structured_outputs: {} }],
  ["structured_outputs", { structured_outputs: { regex: "a", choice: ["b"] } }],
  ["structured_outputs.grammar", { structured_outputs: { grammar: "root ::= x" } }],
  ["structured_outputs.regex", { structured_outputs: { regex: "(" } }],
  ["structured_outputs.regex", { structured_outputs: { regex: "(?=a)a" } }],
  ["structured_outputs.json", { structured_outputs: { json: "{" } }],
  ["structured_outputs.json", { structured_outputs: { json: { type: "string", colour: "red" } } }],
  ["structured_outputs", { structured_outputs: { choice: [] } }],
  ["max_tokens", { structured_outputs: { choice: ["seventeen letters"] }, max_tokens: 16 }],
  ["structured_outputs", { structured_outputs: { regex: null } }],
  ["response_format", { response_format: { type: "xml" } }],
  ["response_format.json_schema.schema", { response_format: { type: "json_schema", json_schema: { name: "x" } } }],
  ["response_format.json_schema", { response_format: { type: "json_object", json_schema: { schema: {} } } }],
  ["response_format", { response_format: { type: "json_schema", json_schema: { schema: true, strict: "yes" } } }],
  ["response_format", { response_format: { type: "json_object" }, structured_outputs: { regex: "a" } }],
  ["suffix", { suffix: "x" }],
  ["best_of", { best_of: 0 }],
  ["best_of", { best_of: 1, n: 2 }],
  ["best_of", { best_of: 2, stream: true }],
  ["colour", { colour: "red" }],
];

describe("a field outside its bounds is refused by name", () => {
  it.each(REFUSED)("%s %j", async (field, body) => {
    const response = await postCompletion(app(), body);
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: Record<string, unknown> };
    expect(error).toEqual({
      message: expect.stringContaining(field),
      type: "invalid_request_error",
      param: field,
      code: "invalid_request",
    });
  });

  it("bounds themselves are accepted", async () => {
    const body = {
      prompt: [0, 255, 256],
      max_tokens: 1,
      temperature: 2,
      top_p: 1,
      top_k: -1,
      min_p: 1,
      repetition_penalty: 10,
      presence_penalty: -2,
      frequency_penalty: 2,
      logit_bias: { "0": -100, "256": 100 },
      seed: Number.MAX_SAFE_INTEGER,
      stop: ["a", [0, 255]],
      stop_token_ids: [256],
      logprobs: 20,
    };
    expect((await postCompletion(app(), body)).status).toBe(200);
  });
});

describe("other refusals", () => {
  it("an unknown model is 404", async () => {
    const response = await postCompletion(app(), { model: "gpt" });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: "model_not_found", param: "model" } });
  });

  it("malformed JSON and unknown routes have the error shape", async () => {
    for (const [response, status] of [
      [await postCompletion(app(), "{"), 400],
      [await fetch(`${app().url}/v1/nothing`), 404],
      [await fetch(`${app().url}/v1/completions?x=1`), 405],
      [await fetch(`${app().url}/v1/models/with-eos`, { method: "POST" }), 405],
    ] as const) {
      expect(response.status).toBe(status);
      expect(Object.keys(((await response.json()) as { error: object }).error).sort()).toEqual([
        "code",
        "message",
        "param",
        "type",
      ]);
    }
  });

  it("a wrong method hears which are right", async () => {
    expect((await fetch(`${app().url}/v1/completions`)).headers.get("allow")).toBe("POST");
    expect((await fetch(`${app().url}/health`, { method: "DELETE" })).headers.get("allow")).toBe("GET, HEAD");
  });

  it("the request id is echoed", async () => {
    const response = await fetch(`${app().url}/health`, { headers: { "x-request-id": "mine-7" } });
    expect(response.headers.get("x-request-id")).toBe("mine-7");
  });
});

describe("a model with a position table", () => {
  const bounded = useApp("transformer");
  it("refuses what does not fit before any work", async () => {
    const response = await postCompletion(bounded(), { prompt: "x".repeat(90), max_tokens: 7 });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: "context_length_exceeded" } });
    expect((await postCompletion(bounded(), { prompt: "x".repeat(90), max_tokens: 6 })).status).toBe(200);
  });
});
