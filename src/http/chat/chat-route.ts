import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { admit } from "../admission.js";
import type { AppContext } from "../app-context.js";
import { mergePieces } from "../completions/completion-pieces.js";
import { choicePieces } from "../completions/completion-response.js";
import { observeSequence } from "../observe-sequence.js";
import { requireModel } from "../require-model.js";
import { failures, WORK_FAILURES } from "../schemas/errors.js";
import { withDefaults } from "../schemas/nullable.js";
import { shared } from "../schemas/shared.js";
import { SseWriter } from "../sse-writer.js";
import { streamChoices } from "../stream-choices.js";
import { toChatRequests, toCompletionBody } from "./chat-request.js";
import { type ChatHead, chunkChoice, collectChat } from "./chat-response.js";
import { ChatAnswer, ChatBody } from "./chat-schema.js";

const schema = {
  tags: ["completions"],
  operationId: "createChatCompletion",
  summary: "Answer a conversation, as JSON or as server-sent events.",
  description:
    "The model's chat template (see `GET /tokenizer_info`) turns the messages into the text that is continued; the " +
    "template's own stop texts end the answer. Streams as `/v1/completions`; chunks are `ChatCompletionChunk`.",
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

/** POST /v1/chat/completions, JSON and SSE. */
export const chatRoute: FastifyPluginAsyncTypebox<{ context: AppContext }> = async (app, { context }) => {
  app.post("/v1/chat/completions", { schema }, async (request, reply) => {
    const { engine, config, metrics, clock } = context;
    const arrivedAt = clock.now();
    const chat = withDefaults(ChatBody, request.body);
    requireModel(chat.model, engine.info);
    const id = `chatcmpl-${chat.request_id ?? request.id}`;
    const body = toCompletionBody(chat, context);
    const requests = toChatRequests(body, id, context);
    return context.lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const admitted = await admit(engine, requests, controller);
      const sequences = admitted.map((events) => observeSequence(events, metrics, clock, arrivedAt));
      const head: ChatHead = {
        id,
        created: Math.floor(Date.now() / 1000),
        model: engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      const pieces = choicePieces(body, requests, sequences);
      if (!body.stream) return collectChat(head, body, pieces);
      const writer = new SseWriter(reply, controller.signal, config.pingSeconds);
      const options = {
        head: { ...head, object: "chat.completion.chunk" },
        toChoice: (piece: Parameters<typeof chunkChoice>[0]) => chunkChoice(piece, body),
        merge: mergePieces,
        interval: body.stream_interval,
        showsIds: body.return_token_ids || body.logprobs !== null,
        wantsUsage: body.stream_options?.include_usage === true,
        size: body.n,
      };
      await streamChoices(writer, pieces, options, controller);
      return reply;
    });
  });
};
