import { describe, expect, it } from "vitest";
import { parseMessage } from "../../src/http/stream/messages.js";
import { json, post } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const choosing = (schema: object) => ({ response_format: { type: "json_schema", json_schema: schema } });

describe("a body that the schema refuses", () => {
  it.each<[message: string, body: unknown]>([
    ["body: must be an object", []],
    ["colour: no such field, or not supported by this server", { colour: 1 }],
    ["max_tokens: must be an integer", { max_tokens: "5" }],
    ["max_tokens: must be >= 0", { max_tokens: -1 }],
    ["stream: must be true or false", { stream: "yes" }],
    ["prompt: must be a string or a list", { prompt: 7 }],
    ["prompt.1: must be a string", { prompt: ["a", 1] }],
    ["prompt.1: must be an integer", { prompt: [1, "a"] }],
    ["prompt.1: must be a list", { prompt: [[1], "a"] }],
    ["prompt.0: must be >= 0", { prompt: [-1] }],
    ["prompt.1.1: must be <= 65535", { prompt: [[1], [2, 70_000]] }],
    ["prompt.0: must be a string or an integer or a list", { prompt: [1.5] }],
    ["stop: must be a string or a list", { stop: 1 }],
    ["stop: must NOT have more than 4 items", { stop: ["a", "b", "c", "d", "e"] }],
    ["stop.1.0: must be <= 255", { stop: ["a", [256]] }],
    ["stop.1: must be a string or a list", { stop: ["a", 5] }],
    ["stream_options.colour: no such field, or not supported by this server", { stream_options: { colour: 1 } }],
    ['logit_bias: the key "0x41" must match pattern "^(0|[1-9][0-9]{0,4})$"', { logit_bias: { "0x41": 1 } }],
    ["logit_bias.65: must be a number", { logit_bias: { 65: "zzz" } }],
    ["response_format: must be an object", { response_format: "json" }],
    ["response_format.type: must be one of text, json_object, json_schema", { response_format: {} }],
    ["response_format.type: must be one of text, json_object, json_schema", { response_format: { type: "xml" } }],
    ["response_format.json_schema: is required", { response_format: { type: "json_schema" } }],
    ["response_format.json_schema.schema: is required", choosing({ name: "x" })],
    ["response_format.json_schema.strict: must be true or false", choosing({ schema: {}, strict: "yes" })],
    ["response_format.json_schema.schema: must be an object or true or false or a string", choosing({ schema: 1 })],
    ["response_format.regex: no such field, or not supported by this server", { response_format: { type: "text", regex: "a" } }], // biome-ignore format: a table
    ["structured_outputs.json_object: must be true", { structured_outputs: { json_object: false } }],
  ])("%s", async (message, body) => {
    const response = await post(app(), "/v1/completions", body);
    const { error } = await json(response);
    expect([response.status, error.message]).toEqual([400, message]);
  });

  it("has a name with signs that JSON pointers escape", async () => {
    const { error } = await json(await post(app(), "/v1/completions", { logit_bias: { "a/b~c": 1 }, "x/y": 1 }));
    expect(error.param).toBe("x/y");
  });
});

describe("a stream's message that the schema refuses", () => {
  const generate = { type: "generate", stream: 1 };
  it.each<[field: string, message: string, body: object]>([
    ["type", "type: must be one of open, generate", { type: "poem" }],
    ["stream", "stream: is required", { type: "generate" }],
    ["colour", "colour: no such field", { ...generate, colour: 1 }],
    ["max_tokens", "max_tokens: must be an integer", { ...generate, max_tokens: "5" }],
    ["logit_bias", 'logit_bias: the key "-1" must match', { ...generate, logit_bias: { "-1": 1 } }],
    ["logit_bias", "logit_bias.65: must be <= 100", { ...generate, logit_bias: { "65": 1e308 } }],
    ["response_format", "response_format.type: must be one of", { ...generate, response_format: { type: "xml" } }],
  ])("%s: %s", (field, message, body) => {
    const parse = () => parseMessage(JSON.stringify(body));
    expect(parse).toThrow(
      expect.objectContaining({ code: "invalid_request", field, message: expect.stringContaining(message) }),
    );
  });
});
