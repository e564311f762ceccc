import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";
import type { VqaFormat } from "../../core/vqa-format.js";
import type { ServerContext } from "../app-context.js";
import type { ModelStatus } from "../models/model-registry.js";
import { answer } from "../schemas/answer.js";
import { failures } from "../schemas/errors.js";
import { shared } from "../schemas/shared.js";

const VisualQuestions = Type.Object(
  {
    answers: Type.Array(Type.String(), { description: "Every answer that the model gives." }),
    max_question_bytes: Type.Integer(),
    order: Type.Enum(["image_question_answer", "question_image_question_answer"], {
      description: "With the image first, it is read once for all questions.",
    }),
    image: Type.Object(
      { mode: Type.Enum(["pixels", "jpeg"]), width: Type.Integer(), height: Type.Integer() },
      { additionalProperties: false, description: "As the model reads it, whatever size was sent." },
    ),
  },
  { additionalProperties: false },
);
export const Model = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal("model"),
    created: Type.Integer({ description: "Unix seconds." }),
    owned_by: Type.String(),
    max_model_len: Type.Union([Type.Integer(), Type.Null()], {
      description: "Most bytes of prompt and output; null where nothing limits them.",
    }),
    trained_context: Type.Integer({ description: "Bytes of context in training." }),
    vocabulary_size: Type.Integer(),
    precision: Type.String(),
    parameters: Type.Integer(),
    state: Type.Enum(["ready", "loading", "unloaded", "stopped", "restarting", "failed", "closed"], {
      description: "Of those that are unloaded, a request loads one.",
    }),
    vqa: Type.Union([VisualQuestions, Type.Null()], {
      description: "Of a model that answers questions about images; null for others.",
    }),
  },
  { additionalProperties: false, $id: "Model" },
);

/** GET /v1/models, /v1/models/{id}, /version, /load, /metrics, /openapi.json. */
export const infoRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { models, lifecycle, metrics } = server;
  const tags = ["service"];

  const list = Type.Object(
    { object: Type.Literal("list"), data: Type.Array(shared(Model)) },
    { additionalProperties: false },
  );
  app.get(
    "/v1/models",
    {
      schema: {
        tags,
        operationId: "listModels",
        summary: "The served models, the default first.",
        response: answer(list),
      },
    },
    async () => ({ object: "list" as const, data: models.list().map(describeModel) }),
  );

  app.get(
    "/v1/models/:id",
    {
      schema: {
        tags,
        operationId: "getModel",
        summary: "One model.",
        params: Type.Object({ id: Type.String() }),
        response: { ...answer(shared(Model)), ...failures(404) },
      },
    },
    async (request) => describeModel(models.status(request.params.id)),
  );

  const version = Type.Object({ version: Type.String() }, { additionalProperties: false });
  app.get(
    "/version",
    { schema: { tags, operationId: "version", summary: "The server's version.", response: answer(version) } },
    async () => ({ version: server.version }),
  );

  const load = Type.Object({ server_load: Type.Integer() }, { additionalProperties: false });
  app.get(
    "/load",
    {
      schema: {
        tags,
        operationId: "load",
        summary: "Requests that are open, for load balancers.",
        response: answer(load),
      },
    },
    async () => ({ server_load: lifecycle.numOpen }),
  );

  app.get(
    "/metrics",
    {
      schema: {
        tags,
        operationId: "metrics",
        summary: "Prometheus text exposition.",
        response: { 200: { description: "Metrics.", content: { "text/plain": { schema: { type: "string" } } } } },
      },
    },
    async (_, reply) => reply.header("content-type", metrics.contentType).send(await metrics.text()),
  );

  app.get(
    "/openapi.json",
    {
      schema: {
        tags,
        operationId: "openapi",
        summary: "This contract.",
        response: {
          200: {
            description: "OpenAPI 3.1.",
            content: { "application/json": { schema: { type: "object", additionalProperties: true } } },
          },
        },
      },
    },
    async () => app.swagger() as object as Record<string, unknown>,
  );
};

function describeModel({ info, state }: ModelStatus) {
  return {
    id: info.id,
    object: "model" as const,
    created: info.createdSeconds,
    owned_by: "mblm-server",
    max_model_len: info.maxLength ?? null,
    trained_context: info.contextLength,
    vocabulary_size: info.vocabularySize,
    precision: info.precision,
    parameters: info.numParameters,
    state,
    vqa: info.vqa === undefined ? null : describeVqa(info.vqa),
  };
}

function describeVqa({ answers, maxQuestionBytes, order, image }: VqaFormat) {
  const { encoding, width, height } = image;
  return {
    answers: answers.map(({ text }) => text),
    max_question_bytes: maxQuestionBytes,
    order,
    image: { mode: encoding.mode, width, height },
  };
}
