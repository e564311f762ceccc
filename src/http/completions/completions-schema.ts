import { type Static, Type } from "typebox";
import { generationFields, Id } from "../schemas/generation-fields.js";
import { field, optional } from "../schemas/nullable.js";
import { requestBody } from "../schemas/shared.js";
import { UsageBody } from "../schemas/usage.js";

const Text = Type.String();

/** POST /v1/completions. */
export const CompletionBody = requestBody(
  "CompletionRequest",
  {
    prompt: field(
      Type.Union([
        Text,
        Type.Array(Text, { minItems: 1 }),
        Type.Array(Id),
        Type.Array(Type.Array(Id), { minItems: 1 }),
      ]),
      "",
      "Text, ids (bytes 0–255 and special ids), or an array of either. May be empty.",
    ),
    max_tokens: field(
      Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
      16,
      "Most bytes to generate; 0 with echo reports on the prompt alone.",
    ),
    ...generationFields,
    best_of: optional(
      Type.Integer({ minimum: 1, maximum: 128 }),
      "Generates this many and answers with the n whose mean log-prob is highest. Not with stream.",
    ),
    echo: field(Type.Boolean(), false, "The answer begins with the prompt; with logprobs, its bytes are scored, too."),
    logprobs: optional(
      Type.Integer({ minimum: 0, maximum: 20 }),
      "Most likely ids reported beside each byte, in the model's own distribution.",
    ),
    prompt_logprobs: optional(
      Type.Integer({ minimum: 0, maximum: 20 }),
      "The same for the prompt's bytes, in vLLM's form.",
    ),
    session_id: optional(
      Type.String({ maxLength: 64 }),
      "Goes on with this session: the prompt and the output become part of it. One prompt, one choice.",
    ),
    suffix: optional(Text, "Not supported: the model continues text and cannot fill in."),
  },
  [
    { prompt: "It was a dark and stormy night", max_tokens: 100, temperature: 0.7, stream: true },
    { prompt: [72, 101, 108, 108, 111], max_tokens: 8, temperature: 0, return_token_ids: true },
    { prompt: "Name: ", max_tokens: 40, structured_outputs: { regex: "[A-Z][a-z]+ [A-Z][a-z]+" } },
    { prompt: "The cat sat on the mat.", max_tokens: 0, echo: true, logprobs: 1 },
  ],
);

export type CompletionBody = Static<typeof CompletionBody>;

const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const FinishReason = Nullable(Type.Enum(["stop", "length"]));

const Logprobs = Type.Object(
  {
    tokens: Type.Array(Text, { description: "ASCII as itself, other bytes as bytes:\\xNN, special ids as id:N." }),
    token_logprobs: Type.Array(Nullable(Type.Number())),
    top_logprobs: Type.Array(Nullable(Type.Record(Text, Type.Number()))),
    text_offset: Type.Array(Type.Integer(), { description: "In bytes." }),
  },
  { additionalProperties: false },
);

const PromptLogprobs = Type.Array(
  Nullable(
    Type.Record(
      Text,
      Type.Object(
        { logprob: Type.Number(), rank: Nullable(Type.Integer()), decoded_token: Text },
        { additionalProperties: false },
      ),
    ),
  ),
);

const Choice = Type.Object(
  {
    index: Type.Integer(),
    text: Text,
    logprobs: Nullable(Logprobs),
    finish_reason: FinishReason,
    stop_reason: Type.Union([Text, Type.Integer(), Type.Array(Type.Integer()), Type.Null()], {
      description: "The stop string (bytes where it is no text) or id that ended the output.",
    }),
    token_ids: Type.Optional(Type.Array(Type.Integer())),
    prompt_token_ids: Type.Optional(Type.Array(Type.Integer())),
    prompt_logprobs: Type.Optional(PromptLogprobs),
  },
  { additionalProperties: false },
);

/** The answer, and each chunk of a stream. */
export const CompletionAnswer = Type.Object(
  {
    id: Text,
    object: Type.Literal("text_completion"),
    created: Type.Integer({ description: "Unix seconds." }),
    model: Text,
    system_fingerprint: Text,
    choices: Type.Array(Choice),
    usage: Type.Optional(Nullable(UsageBody)),
  },
  { additionalProperties: false, $id: "Completion" },
);
