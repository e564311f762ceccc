import { type Static, Type } from "typebox";

const Id = Type.Integer({ minimum: 0, maximum: 65535 });
const Text = Type.String();

/** POST /v1/completions. Defaults are OpenAI's; bounds are checked before any work is done. */
export const CompletionBody = Type.Object(
  {
    model: Type.Optional(Type.String({ description: "Model id; the served model when left out." })),
    prompt: Type.Union(
      [Text, Type.Array(Text, { minItems: 1 }), Type.Array(Id), Type.Array(Type.Array(Id), { minItems: 1 })],
      {
        default: "",
        description: "Text, ids (bytes 0–255 and special ids), or an array of either. May be empty.",
      },
    ),
    max_tokens: Type.Integer({ default: 16, minimum: 0, description: "Most ids to generate." }),
    min_tokens: Type.Integer({
      default: 0,
      minimum: 0,
      description: "No stop condition applies before this many ids.",
    }),
    temperature: Type.Number({ default: 1, minimum: 0, maximum: 2, description: "0 is greedy." }),
    top_p: Type.Number({ default: 1, exclusiveMinimum: 0, maximum: 1 }),
    top_k: Type.Integer({ default: 0, minimum: -1, description: "0 or -1 keeps all." }),
    min_p: Type.Number({ default: 0, minimum: 0, maximum: 1 }),
    repetition_penalty: Type.Number({ default: 1, exclusiveMinimum: 0, maximum: 10 }),
    presence_penalty: Type.Number({ default: 0, minimum: -2, maximum: 2 }),
    frequency_penalty: Type.Number({ default: 0, minimum: -2, maximum: 2 }),
    logit_bias: Type.Union(
      [
        Type.Record(Type.String({ pattern: "^[0-9]{1,5}$" }), Type.Number({ minimum: -100, maximum: 100 })),
        Type.Null(),
      ],
      { default: null },
    ),
    seed: Type.Union([Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }), Type.Null()], {
      default: null,
      description: "The same seed gives the same bytes, whatever else the server does.",
    }),
    stop: Type.Union(
      [
        Type.String({ minLength: 1 }),
        Type.Array(
          Type.Union([
            Type.String({ minLength: 1 }),
            Type.Array(Type.Integer({ minimum: 0, maximum: 255 }), { minItems: 1 }),
          ]),
          {
            maxItems: 4,
          },
        ),
        Type.Null(),
      ],
      { default: null, description: "Up to four strings or byte arrays that end generation." },
    ),
    stop_token_ids: Type.Array(Id, { default: [], maxItems: 64 }),
    ignore_eos: Type.Boolean({ default: false }),
    include_stop_str_in_output: Type.Boolean({ default: false }),
    n: Type.Integer({ default: 1, minimum: 1, maximum: 128 }),
    logprobs: Type.Union([Type.Integer({ minimum: 0, maximum: 20 }), Type.Null()], { default: null }),
    stream: Type.Boolean({ default: false }),
    stream_options: Type.Union(
      [Type.Object({ include_usage: Type.Optional(Type.Boolean()) }, { additionalProperties: false }), Type.Null()],
      { default: null },
    ),
    return_token_ids: Type.Boolean({
      default: false,
      description: "Adds token_ids (the raw bytes) to every choice and prompt_token_ids to the first.",
    }),
    user: Type.Optional(Type.String({ description: "Accepted for compatibility; written to no log." })),
  },
  { additionalProperties: false },
);

export type CompletionBody = Static<typeof CompletionBody>;
