import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { MblmError } from "../../errors.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf } from "../access/caller-context.js";
import { admit } from "../admission.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { type ChoicePiece, mergePieces } from "../completions/completion-pieces.js";
import { choicePieces } from "../completions/completion-response.js";
import { observeSequence } from "../observe-sequence.js";
import { failures, WORK_FAILURES } from "../schemas/errors.js";
import { withDefaults } from "../schemas/nullable.js";
import { shared } from "../schemas/shared.js";
import { SseWriter } from "../sse-writer.js";
import { streamChoices } from "../stream-choices.js";
import { toChatRequests, toCompletionBody } from "./chat-request.js";
import { type ChatHead, chunkChoice, collectChat } from "./chat-response.js";
import { ChatAnswer, ChatBody } from "./chat-schema.js";
import { imageChoices } from "./image-choices.js";
import { answerImageQuestion, imageQuestionOf } from "./image-question.js";

const schema = {
  tags: ["completions"],
  operationId: "createChatCompletion",
  summary: "Answer a conversation, as JSON or as server-sent events.",
  description:
    "The model's chat template (see `GET /tokenizer_info`) turns the messages into the text that is continued; the " +
    "template's own stop texts end the answer. Streams as `/v1/completions`; chunks are `ChatCompletionChunk`. A model that " +
    "answers questions about images takes a user message of an image and a text, and answers with one of its answers.",
  body: shared(ChatBody),
  response: {
    200: {
      description: "The answer.",
      content: {
        "application/json": { schema: shared(ChatAnswer) },
        "text/event-stream": { schema: {} },
      },
    },
    ...failures(...WORK_FAILURES),
  },
};

/** Starts the work and resolves when it can no longer be refused. */
type Start = (controller: AbortController) => Promise<AsyncGenerator<ChoicePiece>[]>;

/** POST /v1/chat/completions, JSON and SSE. */
export const chatRoute: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { config, clock } = server;

  app.post("/v1/chat/completions", { schema, config: { needsRoom: true } }, async (request, reply) => {
    const arrivedAt = clock.now();
    const chat = withDefaults(ChatBody, request.body);
    const context = await contextOf(request, reply, server, chat.model);
    const id = `chatcmpl-${chat.request_id ?? request.id}`;
    const asked = imageQuestionOf(chat.messages);
    const start: Start =
      asked === undefined
        ? textChoices(chat, id, arrivedAt, context)
        : async (controller) => imageChoices(await answerImageQuestion(chat, asked, id, context, controller));
    return context.lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const pieces = await start(controller);
      const head: ChatHead = {
        id,
        created: Math.floor(Date.now() / 1000),
        model: context.engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      if (!chat.stream) return collectChat(head, chat, pieces);
      const writer = new SseWriter(reply, controller.signal, config);
      const options = {
        head: { ...head, object: "chat.completion.chunk" },
        toChoice: (piece: ChoicePiece) => chunkChoice(piece, chat),
        merge: mergePieces,
        interval: chat.stream_interval,
        showsIds: chat.return_token_ids || chat.logprobs,
        wantsUsage: chat.stream_options?.include_usage === true,
        size: chat.n,
      };
      await streamChoices(writer, pieces, options, controller);
      return reply;
    });
  });
};

/** What is wrong with the prompt is so with the messages that it was made of. */
function ofMessages(thrown: unknown): unknown {
  if (!(thrown instanceof MblmError) || thrown.field !== "prompt") return thrown;
  return new MblmError(thrown.code, thrown.message, { field: "messages", cause: thrown });
}

/** The conversation's text, continued. */
function textChoices(chat: ChatBody, id: string, arrivedAt: number, context: AppContext): Start {
  const body = toCompletionBody(chat, context);
  const requests = toChatRequests(body, id, context);
  return async (controller) => {
    const admitted = await admit(context.engine, requests, controller).catch((thrown) => {
      throw ofMessages(thrown);
    });
    const sequences = admitted.map((events) => observeSequence(events, context.metrics, context.clock, arrivedAt));
    return choicePieces(
      body,
      requests.map(({ prompt }) => prompt),
      sequences,
    );
  };
}
