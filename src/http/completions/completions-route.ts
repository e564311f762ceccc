import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { AcquiredSession } from "../../session/session-store.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf, modelOf, sessionsOf } from "../access/caller-context.js";
import { admit } from "../admission.js";
import type { ServerContext } from "../app-context.js";
import { observeSequence } from "../observe-sequence.js";
import { failures, WORK_FAILURES } from "../schemas/errors.js";
import { withDefaults } from "../schemas/nullable.js";
import { shared } from "../schemas/shared.js";
import { committed, requireFit, resumed } from "../sessions/session-sequence.js";
import { SseWriter } from "../sse-writer.js";
import { wholeCompletion, writeCompletion } from "./answer-completion.js";
import { toGenerationRequests } from "./completion-request.js";
import type { CompletionHead } from "./completion-response.js";
import { CompletionAnswer, CompletionBody } from "./completions-schema.js";

const schema = {
  tags: ["completions"],
  operationId: "createCompletion",
  summary: "Continue one or more prompts, as JSON or as server-sent events.",
  description:
    "With `stream: true` the answer is events `data: {chunk}` of the same shape, then `data: [DONE]`. A failure after the " +
    'first byte is an event `data: {"error": …}` before `[DONE]`.',
  body: shared(CompletionBody),
  response: {
    200: {
      description: "The completion.",
      content: {
        "application/json": { schema: shared(CompletionAnswer) },
        "text/event-stream": { schema: {} },
      },
    },
    ...failures(...WORK_FAILURES),
  },
};

/** POST /v1/completions, JSON and SSE. */
export const completionsRoute: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  app.post("/v1/completions", { schema, config: { needsRoom: true } }, async (request, reply) => {
    const arrivedAt = server.clock.now();
    const body = withDefaults(CompletionBody, request.body);
    const model = await modelOf(body.model, body.session_id, sessionsOf(request.caller, server));
    const context = await contextOf(request, reply, server, model);
    const { engine, config, metrics, clock } = context;
    const id = `cmpl-${body.request_id ?? request.id}`;
    const requests = toGenerationRequests(body, id, engine.info, context.constraints, config);
    const run = async (controller: AbortController, session: AcquiredSession | undefined): Promise<unknown> => {
      const state = (await session?.read())?.state;
      requireFit(state, engine.info);
      const resuming = session ? requests.map((one) => resumed(one, state)) : requests;
      const admitted = await admit(engine, resuming, controller);
      const sequences = admitted.map((events) => {
        const kept = session ? committed(events, session.commit) : events;
        return observeSequence(kept, metrics, clock, arrivedAt);
      });
      const head: CompletionHead = {
        id,
        object: "text_completion",
        created: Math.floor(Date.now() / 1000),
        model: engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      const taken = { head, body, prompts: requests.map(({ prompt }) => prompt), sequences };
      if (!body.stream) return wholeCompletion(taken);
      return writeCompletion(taken, new SseWriter(reply, controller.signal, config), reply, controller);
    };
    return context.lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const session = body.session_id === null ? undefined : await context.sessions.acquire(body.session_id);
      try {
        return await run(controller, session);
      } finally {
        await session?.end();
      }
    });
  });
};
