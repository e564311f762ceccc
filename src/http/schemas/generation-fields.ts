import { Type } from "typebox";
import { field, nullable, optional } from "./nullable.js";

export const Id = Type.Integer({ minimum: 0, maximum: 65535 });
const StopText = Type.String({ minLength: 1, maxLength: 1024 });
const StopBytes = Type.Array(Type.Integer({ minimum: 0, maximum: 255 }), { minItems: 1, maxItems: 1024 });

const JsonSchema = Type.Union([Type.Object({}), Type.Boolean(), Type.String()]);

/** vLLM's `structured_outputs`; that exactly one of its fields is given is checked where it is read. */
const StructuredOutputs = Type.Object(
  {
    regex: Type.Optional(nullable(Type.String({ description: "ECMAScript pattern that the whole output matches." }))),
    choice: Type.Optional(
      nullable(
        Type.Array(Type.String({ minLength: 1 }), {
          minItems: 1,
          maxItems: 10_000,
          description: "The output is one of these.",
        }),
      ),
    ),
    json: Type.Optional(
      nullable(
        Type.Unsafe<unknown>({
          ...JsonSchema,
          description: "JSON schema (or its text) that the output is valid against.",
        }),
      ),
    ),
    json_object: Type.Optional(nullable(Type.Literal(true, { description: "The output is a JSON object." }))),
  },
  { additionalProperties: false },
);

/** OpenAI's `response_format`. */
const ResponseFormat = Type.Union([
  Type.Object({ type: Type.Literal("text") }, { additionalProperties: false }),
  Type.Object({ type: Type.Literal("json_object") }, { additionalProperties: false }),
  Type.Object(
    {
      type: Type.Literal("json_schema"),
      json_schema: Type.Object(
        {
          name: Type.Optional(nullable(Type.String())),
          description: Type.Optional(nullable(Type.String())),
          schema: Type.Unsafe<unknown>(JsonSchema),
          strict: Type.Optional(nullable(Type.Boolean())),
        },
        { additionalProperties: false },
      ),
    },
    { additionalProperties: false },
  ),
]);

/** Keys are ids, each in one spelling: two keys never mean the same id. */
const LogitBias = Type.Unsafe<Record<string, number>>({
  type: "object",
  propertyNames: { type: "string", pattern: "^(0|[1-9][0-9]{0,4})$" },
  additionalProperties: Type.Number({ minimum: -100, maximum: 100 }),
});

/** What completions and chat have in common. Defaults are OpenAI's; bounds are checked before any work is done. */
export const generationFields = {
  model: optional(Type.String(), "Model id; the served model when left out."),
  min_tokens: field(Type.Integer({ minimum: 0 }), 0, "No stop condition applies before this many bytes."),
  temperature: field(Type.Number({ minimum: 0, maximum: 2 }), 1, "0 is greedy."),
  top_p: field(Type.Number({ exclusiveMinimum: 0, maximum: 1 }), 1),
  top_k: field(Type.Integer({ minimum: -1, maximum: 65536 }), 0, "0 or -1 keeps all."),
  min_p: field(Type.Number({ minimum: 0, maximum: 1 }), 0),
  repetition_penalty: field(Type.Number({ minimum: 0.01, maximum: 10 }), 1),
  presence_penalty: field(Type.Number({ minimum: -2, maximum: 2 }), 0),
  frequency_penalty: field(Type.Number({ minimum: -2, maximum: 2 }), 0),
  logit_bias: optional(LogitBias, "Id, in decimal, → bias."),
  allowed_token_ids: optional(Type.Array(Id, { minItems: 1, maxItems: 65536 }), "The only ids that may be generated."),
  seed: optional(
    Type.Integer({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }),
    "The same seed gives the same bytes, whatever else the server does.",
  ),
  stop: optional(
    Type.Union([StopText, Type.Array(Type.Union([StopText, StopBytes]), { maxItems: 4 })]),
    "Up to four strings or byte arrays that end generation.",
  ),
  stop_token_ids: field(Type.Array(Id, { maxItems: 64 }), []),
  ignore_eos: field(Type.Boolean(), false),
  include_stop_str_in_output: field(Type.Boolean(), false),
  n: field(Type.Integer({ minimum: 1, maximum: 128 }), 1, "Choices per prompt; the prompt is computed once."),
  stream: field(Type.Boolean(), false),
  stream_options: optional(
    Type.Object({ include_usage: Type.Optional(nullable(Type.Boolean())) }, { additionalProperties: false }),
  ),
  stream_interval: field(
    Type.Integer({ minimum: 1, maximum: 1_000_000 }),
    1,
    "Least bytes per chunk of a stream; the first chunk and the last are sent at once.",
  ),
  structured_outputs: optional(
    StructuredOutputs,
    "What the output must match, within max_tokens: exactly one of these.",
  ),
  response_format: optional(ResponseFormat),
  utf8: field(Type.Boolean(), false, "Generates valid UTF-8 only, and ends on a whole character."),
  return_token_ids: field(
    Type.Boolean(),
    false,
    "Adds token_ids (the raw bytes) to every choice and prompt_token_ids to the first.",
  ),
  truncate_prompt_tokens: optional(
    Type.Integer({ minimum: -1, maximum: Number.MAX_SAFE_INTEGER }),
    "Keeps only the last so many bytes of the prompt; -1: as many as the model holds beside max_tokens.",
  ),
  cache_salt: optional(
    Type.String({ minLength: 1, maxLength: 256 }),
    "Only requests with the same salt share cached prefixes.",
  ),
  priority: field(
    Type.Integer({ minimum: -1_000_000, maximum: 1_000_000 }),
    0,
    "Waiting requests with a lower value start first.",
  ),
  request_id: optional(
    Type.String({ pattern: "^[\\w.-]{1,128}$" }),
    "Part of the answer's id; x-request-id when left out.",
  ),
  user: optional(Type.String(), "Accepted for compatibility; written to no log."),
};
