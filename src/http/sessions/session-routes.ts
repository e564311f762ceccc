import { Readable } from "node:stream";
import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyRequest } from "fastify";
import { type Static, Type } from "typebox";
import { readWhole } from "../../feeding/body-reader.js";
import { feedPieces, PIECE_BYTES } from "../../feeding/feed-pieces.js";
import type { SessionSummary } from "../../session/session.js";
import { changeSession, type SessionStore } from "../../session/session-store.js";
import { decodeState, encodeState } from "../../session/state-codec.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf, sessionsOf } from "../access/caller-context.js";
import type { ServerContext } from "../app-context.js";
import { answer } from "../schemas/answer.js";
import { failures } from "../schemas/errors.js";
import { shared } from "../schemas/shared.js";
import { withBody } from "../uploads/open-body.js";
import { SessionAnswer, SessionBody, SessionList } from "./session-schema.js";
import { requireFit, requireUsable } from "./session-sequence.js";

function toBody({ id, createdSeconds, lastUsedSeconds, length }: SessionSummary): Static<typeof SessionAnswer> {
  return { id, object: "session", created: createdSeconds, last_used: lastUsedSeconds, bytes: length ?? null };
}

const params = Type.Object({ id: Type.String() });
const appendQuery = Type.Object(
  { model: Type.Optional(Type.String({ description: "Of a session that is empty: the model that it is for." })) },
  { additionalProperties: false },
);
const tags = ["sessions"];
const created = {
  201: { description: "The new session.", content: { "application/json": { schema: shared(SessionAnswer) } } },
};

/** Conversations whose state is kept: `/v1/sessions` and below. Completions go on with them by `session_id`. */
export const sessionRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { config, lifecycle, models } = server;
  const own = (request: FastifyRequest): SessionStore => sessionsOf(request.caller, server);

  app.get(
    "/v1/sessions",
    {
      schema: {
        tags,
        operationId: "listSessions",
        summary: "All sessions.",
        response: { ...answer(SessionList), ...failures(503) },
      },
    },
    async (request) => ({ object: "list" as const, data: (await own(request).list()).map(toBody) }),
  );

  app.post(
    "/v1/sessions",
    {
      schema: {
        tags,
        operationId: "createSession",
        summary: "A new, empty session.",
        body: shared(SessionBody),
        response: { ...created, ...failures(400, 409, 413, 415, 429, 503) },
      },
    },
    async (request, reply) => {
      const session = await own(request).create(request.body.id ?? undefined);
      return reply.code(201).send(toBody(session));
    },
  );

  app.get(
    "/v1/sessions/:id",
    {
      schema: {
        tags,
        operationId: "getSession",
        summary: "One session.",
        params,
        response: { ...answer(shared(SessionAnswer)), ...failures(400, 404, 503) },
      },
    },
    async (request) => toBody(await own(request).get(request.params.id)),
  );

  app.delete(
    "/v1/sessions/:id",
    {
      schema: {
        tags,
        operationId: "deleteSession",
        summary: "Forget a session.",
        params,
        response: {
          ...answer(Type.Object({ id: Type.String(), deleted: Type.Literal(true) }, { additionalProperties: false })),
          ...failures(404, 409, 503),
        },
      },
    },
    async (request) => {
      await own(request).delete(request.params.id);
      return { id: request.params.id, deleted: true as const };
    },
  );

  app.post(
    "/v1/sessions/:id/fork",
    {
      schema: {
        tags,
        operationId: "forkSession",
        summary: "A new session that begins as this one is now.",
        params,
        body: shared(SessionBody),
        response: { ...created, ...failures(400, 404, 409, 413, 415, 429, 503) },
      },
    },
    async (request, reply) => {
      const { state } = await own(request).get(request.params.id);
      return reply.code(201).send(toBody(await own(request).create(request.body.id ?? undefined, state)));
    },
  );

  app.get(
    "/v1/sessions/:id/snapshot",
    {
      schema: {
        tags,
        operationId: "downloadSnapshot",
        summary: "The session's state, to be uploaded to any server of the same bundle.",
        params,
        response: {
          200: {
            description: "The state; no bytes for an empty session.",
            content: {
              "application/octet-stream": { schema: Type.Unsafe<Buffer>({ type: "string", format: "binary" }) },
            },
          },
          ...failures(400, 404, 503),
        },
      },
    },
    async (request, reply) => {
      const { state } = await own(request).get(request.params.id);
      const content = state === undefined ? Buffer.alloc(0) : encodeState(state);
      return reply.header("content-type", "application/octet-stream").send(content);
    },
  );

  await app.register(async (bytes) => {
    bytes.removeAllContentTypeParsers();
    bytes.addContentTypeParser("*", (_, payload, done) => done(null, payload));
    const stream = (body: unknown): Readable => (body as Readable | undefined) ?? Readable.from([]);

    bytes.post(
      "/v1/sessions/:id/append",
      {
        config: { streamsBody: true },
        schema: {
          tags,
          operationId: "appendToSession",
          summary: "Append bytes to a session, of any number; nothing is generated.",
          description: "All of them become part of the session, or, when the request fails, none.",
          params,
          querystring: appendQuery,
          response: { ...answer(shared(SessionAnswer)), ...failures(400, 404, 409, 413, 429, 499, 500, 503) },
        },
      },
      async (request, reply) =>
        lifecycle.run(async (controller) => {
          const { id } = request.params as Static<typeof params>;
          const { model } = request.query as Static<typeof appendQuery>;
          abortOnDisconnect(request, reply, controller);
          const session = await changeSession(own(request), id, async ({ read, commit }) => {
            const { state } = await read();
            const context = await contextOf(request, reply, server, model ?? state?.model.id);
            const { engine } = context;
            requireFit(state, engine.info);
            const options = { id: `append-${request.id}`, priority: 0, resume: state };
            const fed = await withBody(request, reply, context, controller, async ({ body, stop }) => {
              const feed = feedPieces(engine, body.pieces(PIECE_BYTES, stop), options, stop);
              let step = await feed.next();
              while (!step.done) step = await feed.next();
              return step.value;
            });
            return commit({ state: fed });
          });
          return toBody(session);
        }),
    );

    bytes.put(
      "/v1/sessions/:id/snapshot",
      {
        schema: {
          tags,
          operationId: "uploadSnapshot",
          summary: "A new session with a downloaded state.",
          description: "The model that the state is of is loaded, if it is not, and checks that it can go on from it.",
          params,
          response: { ...created, ...failures(400, 404, 409, 413, 429, 499, 500, 503) },
        },
      },
      async (request, reply) => {
        const { id } = request.params as Static<typeof params>;
        // Before the work begins, so that a shutdown waits for no body.
        const content = await readWhole(stream(request.body), config.maxBodyBytes);
        return lifecycle.run(async (controller) => {
          abortOnDisconnect(request, reply, controller);
          const state = content.length === 0 ? undefined : decodeState(content);
          if (state) {
            models.requireFit(state, "snapshot");
            const { engine } = await contextOf(request, reply, server, state.model.id);
            await requireUsable(state, engine, `snapshot-${request.id}`, controller.signal);
          }
          return reply.code(201).send(toBody(await own(request).create(id, state)));
        });
      },
    );
  });
};
