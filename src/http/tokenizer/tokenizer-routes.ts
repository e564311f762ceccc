import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { type Static, Type } from "typebox";
import type { ModelInfo } from "../../core/model-info.js";
import { contextOf } from "../access/caller-context.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { ChatBody } from "../chat/chat-schema.js";
import { spellId } from "../completions/logprobs.js";
import { checkId, invalid } from "../generation-options.js";
import { failures } from "../schemas/errors.js";
import { Id } from "../schemas/generation-fields.js";
import { field, optional, withDefaults } from "../schemas/nullable.js";
import { requestBody, shared } from "../schemas/shared.js";
import { decodeIds, encodeText } from "../text.js";

export const TokenizeBody = requestBody(
  "TokenizeRequest",
  {
    model: optional(Type.String()),
    prompt: optional(Type.String(), "Text. The text of a special token, alone, is that token's id."),
    messages: optional(ChatBody.properties.messages, "A conversation, in place of a prompt."),
    add_generation_prompt: field(Type.Boolean(), true),
    add_special_tokens: field(Type.Boolean(), true, "Accepted for compatibility: bytes need no special tokens."),
    return_token_strs: field(Type.Boolean(), false),
  },
  [{ prompt: "héllo" }, { messages: [{ role: "user", content: "Hi" }] }],
);
type TokenizeBody = Static<typeof TokenizeBody>;

const TokenizeAnswer = Type.Object(
  {
    count: Type.Integer(),
    max_model_len: Type.Union([Type.Integer(), Type.Null()]),
    tokens: Type.Array(Type.Integer()),
    token_strs: Type.Union([Type.Array(Type.String()), Type.Null()]),
  },
  { additionalProperties: false },
);

export const DetokenizeBody = requestBody(
  "DetokenizeRequest",
  {
    model: optional(Type.String()),
    tokens: Type.Array(Id),
  },
  [{ tokens: [104, 195, 169] }],
);

const TokenizerInfo = Type.Object(
  {
    tokenizer_class: Type.Literal("ByteTokenizer"),
    vocab_size: Type.Integer(),
    model_max_length: Type.Union([Type.Integer(), Type.Null()]),
    bos_token: Type.Null(),
    eos_token: Type.Union([Type.String(), Type.Null()]),
    pad_token: Type.Union([Type.String(), Type.Null()]),
    chat_template: Type.String(),
    chat_stop: Type.Array(Type.String()),
  },
  { additionalProperties: false },
);

/** POST /tokenize and /detokenize, GET /tokenizer_info: tokens are bytes, and a few special ids. */
export const tokenizerRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const tags = ["tokenizer"];

  app.post(
    "/tokenize",
    {
      schema: {
        tags,
        operationId: "tokenize",
        summary: "Text or a conversation as ids.",
        body: shared(TokenizeBody),
        response: { 200: { description: "The ids.", ...json(TokenizeAnswer) }, ...failures(400, 404, 413, 415) },
      },
    },
    async (request, reply) => {
      const body = withDefaults(TokenizeBody, request.body as TokenizeBody);
      const context = await contextOf(request, reply, server, body.model);
      const { info } = context.engine;
      const tokens = toTokens(body, context, specialTexts(info));
      return {
        count: tokens.length,
        max_model_len: info.maxLength ?? null,
        tokens,
        token_strs: body.return_token_strs ? tokens.map(spellId) : null,
      };
    },
  );

  app.post(
    "/detokenize",
    {
      schema: {
        tags,
        operationId: "detokenize",
        summary: "Ids as text; bytes that are no UTF-8 become U+FFFD.",
        body: shared(DetokenizeBody),
        response: {
          200: {
            description: "The text.",
            ...json(Type.Object({ prompt: Type.String() }, { additionalProperties: false })),
          },
          ...failures(400, 404, 413, 415),
        },
      },
    },
    async (request) => {
      const { model, tokens } = request.body as Static<typeof DetokenizeBody>;
      const { info } = server.models.status(model);
      for (const id of tokens) checkId("tokens", id, info.vocabularySize);
      const only = tokens.length === 1 ? [...specialTexts(info)].find(([, id]) => id === tokens[0]) : undefined;
      return { prompt: only?.[0] ?? decodeIds(tokens) };
    },
  );

  app.get(
    "/tokenizer_info",
    {
      schema: {
        tags,
        operationId: "tokenizerInfo",
        summary: "Vocabulary, special tokens and chat template.",
        querystring: Type.Object({ model: Type.Optional(Type.String()) }, { additionalProperties: false }),
        response: {
          200: { description: "As a tokenizer's configuration.", ...json(TokenizerInfo) },
          ...failures(400, 404),
        },
      },
    },
    async (request) => describeTokenizer(server.models.status(request.query.model).info),
  );
};

function describeTokenizer(info: ModelInfo): Static<typeof TokenizerInfo> {
  return {
    tokenizer_class: "ByteTokenizer" as const,
    vocab_size: info.vocabularySize,
    model_max_length: info.maxLength ?? null,
    bos_token: null,
    eos_token: specialText("eos", info.eosId) ?? null,
    pad_token: specialText("pad", info.padId) ?? null,
    chat_template: info.chat.template,
    chat_stop: [...info.chat.stop],
  };
}

function toTokens(body: TokenizeBody, { chatTemplate }: AppContext, specials: ReadonlyMap<string, number>): number[] {
  if ((body.prompt === null) === (body.messages === null)) throw invalid("prompt", "give either prompt or messages");
  const text = body.prompt ?? chatTemplate.render(body.messages!, body.add_generation_prompt);
  const special = specials.get(text);
  return special === undefined ? [...encodeText("prompt", text)] : [special];
}

/** How a special id is written: a byte as itself, an id above all bytes by its name. */
function specialText(name: string, id: number | undefined): string | undefined {
  if (id === undefined) return undefined;
  return id < 0x80 ? String.fromCharCode(id) : `<|${name}|>`;
}

function specialTexts({ eosId, padId }: ModelInfo): ReadonlyMap<string, number> {
  const texts = new Map<string, number>();
  if (padId !== undefined) texts.set(specialText("pad", padId)!, padId);
  if (eosId !== undefined) texts.set(specialText("eos", eosId)!, eosId);
  return texts;
}

function json<T>(schema: T) {
  return { content: { "application/json": { schema } } };
}
