import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import type { CompletionRequest } from "../../src/client/completion-request.js";
import { numChoices, toRequestBody } from "../../src/client/request-body.js";

const bytes = Uint8Array.of(0, 255, 10);
const schema = { type: "object" };

/** Every field once; the type makes the list complete. */
const FIELDS: { [K in keyof Required<CompletionRequest> as Exclude<K, "extra">]: [unknown, string, unknown?] } = {
  prompt: ["text", "prompt"],
  model: ["books", "model"],
  maxTokens: [7, "max_tokens"],
  minTokens: [2, "min_tokens"],
  temperature: [0, "temperature"],
  topP: [0.5, "top_p"],
  topK: [40, "top_k"],
  minP: [0.1, "min_p"],
  repetitionPenalty: [1.1, "repetition_penalty"],
  presencePenalty: [0.2, "presence_penalty"],
  frequencyPenalty: [-0.2, "frequency_penalty"],
  logitBias: [{ 10: -100 }, "logit_bias"],
  allowedTokenIds: [bytes, "allowed_token_ids", [0, 255, 10]],
  seed: [-5, "seed"],
  stop: ["\n", "stop"],
  stopTokenIds: [[10], "stop_token_ids"],
  ignoreEos: [true, "ignore_eos"],
  includeStop: [true, "include_stop_str_in_output"],
  structuredOutputs: [{ regex: "a+" }, "structured_outputs"],
  responseFormat: [{ type: "json_object" }, "response_format"],
  utf8: [true, "utf8"],
  echo: [true, "echo"],
  truncatePromptTokens: [-1, "truncate_prompt_tokens"],
  cacheSalt: ["salt", "cache_salt"],
  sessionId: ["s-1", "session_id"],
  priority: [-3, "priority"],
  requestId: ["mine", "request_id"],
  user: ["me", "user"],
  logprobs: [5, "logprobs"],
  promptLogprobs: [0, "prompt_logprobs"],
  n: [2, "n"],
  bestOf: [4, "best_of"],
};
const STREAM_ONLY = ["stream_interval"];
/** What the client sets itself, and what the server has for refusing it only. */
const NOT_THE_CALLERS = ["stream", "stream_options", "return_token_ids", "suffix"];

const toBody = (request: object) => toRequestBody(request as CompletionRequest);

describe("toRequestBody", () => {
  it.each(Object.entries(FIELDS))("%s", (name, [value, wireName, wireValue = value]) => {
    expect(toBody({ [name]: value })).toEqual({ [wireName]: wireValue });
  });

  it("has every field of the contract", () => {
    const contract = parse(readFileSync(new URL("../../openapi.yaml", import.meta.url), "utf8"));
    const inContract = Object.keys(contract.components.schemas.CompletionRequest.properties);
    const inClient = Object.values(FIELDS).map(([, wireName]) => wireName);
    expect([...inClient, ...STREAM_ONLY, ...NOT_THE_CALLERS].sort()).toEqual(inContract.sort());
    expect(toBody({ streamInterval: 8 })).toEqual({ stream_interval: 8 });
  });

  it.each([
    ["bytes", { prompt: bytes }, { prompt: [0, 255, 10] }],
    ["no bytes", { prompt: new Uint8Array() }, { prompt: [] }],
    ["ids", { prompt: [256, 1] }, { prompt: [256, 1] }],
    ["texts", { prompt: ["a", "b"] }, { prompt: ["a", "b"] }],
    [
      "bytes and ids",
      { prompt: [bytes, [256]] },
      {
        prompt: [[0, 255, 10], [256]],
      },
    ],
    ["a stop of bytes", { stop: bytes }, { stop: [[0, 255, 10]] }],
    ["stops of either kind", { stop: ["a", bytes] }, { stop: ["a", [0, 255, 10]] }],
    ["choices", { structuredOutputs: { choice: ["a"] } }, { structured_outputs: { choice: ["a"] } }],
    ["a schema", { structuredOutputs: { json: schema } }, { structured_outputs: { json: schema } }],
    ["any object", { structuredOutputs: { jsonObject: true } }, { structured_outputs: { json_object: true } }],
    [
      "OpenAI's schema",
      { responseFormat: { type: "json_schema", jsonSchema: { schema, strict: true } } },
      { response_format: { type: "json_schema", json_schema: { schema, strict: true } } },
    ],
    ["what is undefined as not given", { maxTokens: undefined, seed: undefined }, {}],
    [
      "extra fields, without precedence",
      { maxTokens: 2, extra: { max_tokens: 1, new: [3] } },
      { max_tokens: 2, new: [3] },
    ],
  ])("sends %s", (_, request, body) => expect(toBody(request)).toEqual(body));

  it.each([
    ["a wire name", { max_tokens: 1 }, /^max_tokens: no such field/],
    ["a slip", { maxtokens: 1 }, /^maxtokens: no such field/],
    ["a name that objects have", { toString: 1 }, /^toString: no such field/],
    ["NaN", { temperature: Number.NaN }, /^temperature: must be a finite number/],
    ["infinity", { topK: Number.POSITIVE_INFINITY }, /^topK: must be a finite number/],
  ])("refuses %s", (_, request, message) => {
    expect(() => toBody(request)).toThrow(TypeError);
    expect(() => toBody(request)).toThrow(message);
  });
});

describe("numChoices", () => {
  it.each([
    [{ prompt: "ab" }, 1],
    [{ prompt: [1, 2, 3] }, 1],
    [{ prompt: [] }, 1],
    [{ prompt: ["a", "b"] }, 2],
    [{ prompt: [[1], [2], []], n: 3 }, 9],
    [{ prompt: "a", n: 4 }, 4],
  ])("of %j is %i", (body, count) => expect(numChoices(body)).toBe(count));
});
