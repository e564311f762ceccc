import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";
import { MblmError } from "../errors.js";
import type { AppContext } from "./app-context.js";

/** GET /v1/models, /v1/models/{id}, /health, /version, /metrics. */
export const infoRoutes: FastifyPluginAsyncTypebox<{ context: AppContext }> = async (app, { context }) => {
  const { info } = context.engine;
  const model = {
    id: info.id,
    object: "model",
    created: info.createdSeconds,
    owned_by: "mblm-server",
    max_model_len: info.maxLength ?? null,
    trained_context: info.contextLength,
    vocabulary_size: info.vocabularySize,
    precision: info.precision,
    parameters: info.numParameters,
  };

  app.get("/v1/models", async () => ({ object: "list", data: [model] }));

  app.get("/v1/models/:id", { schema: { params: Type.Object({ id: Type.String() }) } }, async (request) => {
    if (request.params.id !== info.id) {
      throw new MblmError("model_not_found", `model: ${request.params.id} is not served here; ${info.id} is`, {
        field: "model",
      });
    }
    return model;
  });

  /** 200 only while requests are served. */
  app.get("/health", async (_, reply) => {
    const status = context.lifecycle.isDraining ? "draining" : context.engine.state;
    return reply.code(status === "ready" ? 200 : 503).send({ status });
  });

  app.get("/version", async () => ({ version: context.version }));

  /** Prometheus text exposition. */
  app.get("/metrics", async (_, reply) => {
    return reply.header("content-type", context.metrics.contentType).send(await context.metrics.text());
  });
};
