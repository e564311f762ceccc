import { type Static, Type } from "typebox";
import { generationFields } from "../schemas/generation-fields.js";
import { field, nullable, optional } from "../schemas/nullable.js";
import { requestBody } from "../schemas/shared.js";
import { UsageBody } from "../schemas/usage.js";

const Text = Type.String();
const TextPart = Type.Object({ type: Type.Literal("text"), text: Text }, { additionalProperties: false });
const ImagePart = Type.Object(
  {
    type: Type.Literal("image_url"),
    image_url: Type.Object(
      {
        url: Type.String({
          description: "A data: URL of a JPEG, PNG or WebP file, or an https: URL of a host that the server lists.",
        }),
        detail: Type.Optional(nullable(Type.Literal("auto"))),
      },
      { additionalProperties: false },
    ),
  },
  {
    additionalProperties: false,
    description: "For models that answer questions about images: one image and its question in one user message.",
  },
);

/** Official clients send an answer back as a message of the next request, with what it has nothing in. */
const Nothing = Type.Optional(
  Type.Null({ description: "May be there, as in an answer that is sent back; null only." }),
);

const Message = Type.Object(
  {
    role: Type.Enum(["system", "developer", "user", "assistant"]),
    content: Type.Union([Text, Type.Array(Type.Union([TextPart, ImagePart]), { maxItems: 1024 })], {
      description: "Text, whole or in parts; an image is a part.",
    }),
    name: Type.Optional(nullable(Text)),
    refusal: Nothing,
    annotations: Nothing,
    audio: Nothing,
    function_call: Nothing,
    tool_calls: Nothing,
  },
  { additionalProperties: false },
);

/** POST /v1/chat/completions. */
export const ChatBody = requestBody(
  "ChatCompletionRequest",
  {
    messages: Type.Array(Message, { minItems: 1, maxItems: 4096 }),
    max_tokens: optional(
      Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
      "Most bytes to generate; 1024 when neither this nor max_completion_tokens is given.",
    ),
    max_completion_tokens: optional(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }), "As max_tokens."),
    ...generationFields,
    logprobs: field(Type.Boolean(), false),
    top_logprobs: optional(Type.Integer({ minimum: 0, maximum: 20 }), "Needs logprobs: true."),
    add_generation_prompt: field(
      Type.Boolean(),
      true,
      "Whether the template's beginning of the assistant's turn follows the messages.",
    ),
  },
  [
    { messages: [{ role: "user", content: "Who are you?" }], max_tokens: 60 },
    {
      messages: [{ role: "user", content: "Yes or no?" }],
      max_tokens: 10,
      response_format: { type: "json_schema", json_schema: { name: "answer", schema: { enum: ["yes", "no"] } } },
    },
  ],
);

export type ChatBody = Static<typeof ChatBody>;

const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const Token = { token: Text, logprob: Type.Number(), bytes: Nullable(Type.Array(Type.Integer())) };
const Logprobs = Type.Object(
  {
    content: Type.Array(
      Type.Object(
        { ...Token, top_logprobs: Type.Array(Type.Object(Token, { additionalProperties: false })) },
        {
          additionalProperties: false,
        },
      ),
    ),
    refusal: Type.Null(),
  },
  { additionalProperties: false },
);
const choiceFields = {
  index: Type.Integer(),
  logprobs: Nullable(Logprobs),
  finish_reason: Nullable(Type.Enum(["stop", "length"])),
  stop_reason: Type.Union([Text, Type.Integer(), Type.Array(Type.Integer()), Type.Null()]),
  token_ids: Type.Optional(Type.Array(Type.Integer())),
  prompt_token_ids: Type.Optional(Type.Array(Type.Integer())),
};
const headFields = {
  id: Text,
  created: Type.Integer({ description: "Unix seconds." }),
  model: Text,
  system_fingerprint: Text,
};

export const ChatAnswer = Type.Object(
  {
    ...headFields,
    object: Type.Literal("chat.completion"),
    choices: Type.Array(
      Type.Object(
        {
          ...choiceFields,
          message: Type.Object(
            { role: Type.Literal("assistant"), content: Text, refusal: Type.Null() },
            { additionalProperties: false },
          ),
        },
        { additionalProperties: false },
      ),
    ),
    usage: UsageBody,
  },
  { additionalProperties: false, $id: "ChatCompletion" },
);

export const ChatChunk = Type.Object(
  {
    ...headFields,
    object: Type.Literal("chat.completion.chunk"),
    choices: Type.Array(
      Type.Object(
        {
          ...choiceFields,
          delta: Type.Object(
            { role: Type.Optional(Type.Literal("assistant")), content: Type.Optional(Text) },
            { additionalProperties: false },
          ),
        },
        { additionalProperties: false },
      ),
    ),
    usage: Type.Optional(Nullable(UsageBody)),
  },
  { additionalProperties: false, $id: "ChatCompletionChunk" },
);
