import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { readGolden } from "../test-bundles.js";
import { ask, post, streamEvents } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const seeing = useApp("vqa");
const contract = parse(readFileSync(new URL("../../openapi.yaml", import.meta.url), "utf8")) as {
  components: { schemas: object };
};
const ajv = new Ajv2020({ strict: false });
ajv.addSchema({ $id: "contract", ...contract });

/** Checks a value against one of the contract's schemas. */
function expectValid(name: string, value: unknown): void {
  const validate = ajv.getSchema(`contract#/components/schemas/${name}`);
  if (validate === undefined) throw new Error(`no schema ${name}`);
  expect(validate(value), JSON.stringify([validate.errors, value])).toBe(true);
}

const COMPLETIONS: object[] = [
  { prompt: "a" },
  { prompt: ["a", "b"], n: 2, logprobs: 3, return_token_ids: true, seed: 1 },
  { prompt: "abc", echo: true, logprobs: 0, max_tokens: 0 },
  { prompt: "abc", prompt_logprobs: 2, max_tokens: 1 },
  { prompt: "abc", stop: [[120]], allowed_token_ids: [120] },
  { prompt: "abc", stop: [[200]], allowed_token_ids: [200] },
  { prompt: "abc", stop_token_ids: [120], allowed_token_ids: [120] },
];
const CHATS: object[] = [{}, { n: 2, logprobs: true, top_logprobs: 3, return_token_ids: true, max_tokens: 5 }].map(
  (fields) => ({ messages: [{ role: "user", content: "a" }], max_tokens: 9, ...fields }),
);

describe("answers and chunks are what the contract says", () => {
  it.each(COMPLETIONS)("completion %j", async (body) => {
    expectValid("Completion", await ask(app(), "/v1/completions", body));
    const options = { stream_options: { include_usage: true } };
    for (const chunk of await streamEvents(app(), "/v1/completions", { ...body, ...options })) {
      expectValid("Completion", chunk);
    }
  });

  it.each(CHATS)("chat %j", async (body) => {
    expectValid("ChatCompletion", await ask(app(), "/v1/chat/completions", body));
    const options = { stream_options: { include_usage: true } };
    for (const chunk of await streamEvents(app(), "/v1/chat/completions", { ...body, ...options })) {
      expectValid("ChatCompletionChunk", chunk);
    }
  });

  it("visual questions", async () => {
    const { image, question } = readGolden("vqa").asked![0]!;
    expectValid("VqaAnswers", await ask(seeing(), "/v1/vqa", { image, questions: [question, "what"] }));
    for (const server of [seeing, app])
      expectValid("Model", await (await fetch(`${server().url}/v1/models/${server().engine.info.id}`)).json());
  });

  it("score", async () => {
    for (const query of ["", "?return=entropy"]) {
      const text = await (await fetch(`${app().url}/v1/score${query}`, { method: "POST", body: "abc" })).text();
      expectValid("Score", JSON.parse(text.trimEnd().split("\n").at(-1)!));
    }
  });

  it("errors", async () => {
    for (const response of [
      await post(app(), "/v1/completions", { n: 0 }),
      await post(app(), "/v1/nothing", {}),
      await fetch(`${app().url}/v1/completions`),
      await fetch(`${app().url}/v1/score`, { method: "POST" }),
    ]) {
      expectValid("Error", await response.json());
    }
  });
});
