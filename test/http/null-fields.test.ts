import { Ajv } from "ajv";
import { describe, expect, it } from "vitest";
import { ChatBody } from "../../src/http/chat/chat-schema.js";
import { CompletionBody } from "../../src/http/completions/completions-schema.js";
import { SessionBody } from "../../src/http/sessions/session-schema.js";
import { MESSAGES, parseMessage } from "../../src/http/stream/messages.js";
import { DetokenizeBody, TokenizeBody } from "../../src/http/tokenizer/tokenizer-routes.js";
import { VqaBody } from "../../src/http/vqa/vqa-schema.js";
import { readGolden } from "../test-bundles.js";
import { ask } from "./api.js";
import { type TestApp, useApp } from "./test-app.js";

interface Schema {
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

const BODIES = { CompletionBody, ChatBody, TokenizeBody, DetokenizeBody, VqaBody, SessionBody, ...MESSAGES };
const ajv = new Ajv({ strict: false });

/** Fields, at any depth, that may be left out. */
function optionalFields(schema: Schema, path = ""): [path: string, schema: Schema][] {
  const { required = [], properties = {}, items, anyOf = [] } = schema;
  const own = Object.entries(properties).filter(([name]) => !required.includes(name));
  return [
    ...own.map(([name, field]): [string, Schema] => [`${path}${name}`, field]),
    ...Object.entries(properties).flatMap(([name, field]) => optionalFields(field, `${path}${name}.`)),
    ...(items === undefined ? [] : optionalFields(items, `${path}[].`)),
    ...anyOf.flatMap((form) => optionalFields(form, path)),
  ];
}

describe("null means that a field is left out", () => {
  it.each(Object.entries(BODIES))("in all of %s", (_, body) => {
    const { $id: _id, ...schema } = body as Schema & { $id?: string };
    const refusing = optionalFields(schema).filter(([, field]) => !ajv.validate(field, null));
    expect(refusing.map(([path]) => path)).toEqual([]);
  });

  it("looks at fields inside fields", () => {
    const paths = optionalFields(ChatBody as Schema).map(([path]) => path);
    for (const path of [
      "model",
      "messages.[].name",
      "messages.[].content.[].image_url.detail",
      "response_format.json_schema.strict",
      "structured_outputs.json",
    ]) {
      expect(paths).toContain(path);
    }
  });

  const app = useApp("mamba2-transformer");
  const seeing = useApp("vqa");
  const { image, question } = readGolden("vqa").asked![0]!;
  const messages = [{ role: "user", content: "Hi" }];
  const more = { max_tokens: 5, seed: 3 };
  it.each<[path: string, body: object, schema: object, app: () => TestApp]>([
    ["/v1/completions", { ...more, prompt: "a" }, CompletionBody, app],
    ["/v1/completions", more, CompletionBody, app],
    ["/v1/chat/completions", { ...more, messages }, ChatBody, app],
    ["/tokenize", { prompt: "a" }, TokenizeBody, app],
    ["/tokenize", { messages }, TokenizeBody, app],
    ["/detokenize", { tokens: [65] }, DetokenizeBody, app],
    ["/v1/vqa", { image, question }, VqaBody, seeing],
  ])("%s (%#) answers the same with all other fields null", async (path, body, schema, server) => {
    const names = Object.keys((schema as Schema).properties!);
    const full = { ...Object.fromEntries(names.map((name) => [name, null])), ...body };
    expect(variable(await ask<object>(server(), path, full))).toEqual(
      variable(await ask<object>(server(), path, body)),
    );
  });

  it("inside objects, too", async () => {
    const body = { prompt: "a", max_tokens: 9, structured_outputs: { choice: ["yes"] } };
    const outputs = { regex: null, choice: ["yes"], json: null, json_object: null };
    expect(await ask(app(), "/v1/completions", { ...body, structured_outputs: outputs })).toMatchObject({
      choices: [{ text: "yes" }],
    });
    const schema = { name: null, description: null, strict: null, schema: { const: "yes" } };
    const format = { type: "json_schema", json_schema: schema };
    expect(await ask(app(), "/v1/chat/completions", { messages, response_format: format })).toMatchObject({
      choices: [{ message: { content: '"yes"' } }],
    });
  });

  it("in a stream's messages", () => {
    const generate = { type: "generate", stream: 1 };
    const names = Object.keys(MESSAGES.generate.properties);
    const full = { ...Object.fromEntries(names.map((name) => [name, null])), ...generate };
    expect(parseMessage(JSON.stringify(full))).toEqual(parseMessage(JSON.stringify(generate)));
  });
});

/** What differs between two answers to the same question. */
function variable(answer: object): object {
  const { id, created, timings, usage, answers, ...rest } = answer as Record<string, unknown>;
  const { prompt_tokens_details: _, ...counts } = (usage ?? {}) as Record<string, unknown>;
  const listed = (answers as { timings: unknown }[] | undefined)?.map(({ timings: _own, ...shown }) => shown);
  return { ...rest, counts, listed };
}
