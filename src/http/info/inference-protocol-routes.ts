import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";
import type { ServerContext } from "../app-context.js";
import { answer } from "../schemas/answer.js";
import { failures } from "../schemas/errors.js";

const Server = Type.Object(
  { name: Type.String(), version: Type.String(), extensions: Type.Array(Type.String()) },
  { additionalProperties: false },
);
const Port = Type.Object(
  { name: Type.String(), datatype: Type.String(), shape: Type.Array(Type.Integer()) },
  { additionalProperties: false },
);
const ModelMetadata = Type.Object(
  {
    name: Type.String(),
    versions: Type.Array(Type.String()),
    platform: Type.String(),
    inputs: Type.Array(Port),
    outputs: Type.Array(Port),
  },
  { additionalProperties: false },
);
const Live = Type.Object({ live: Type.Boolean() }, { additionalProperties: false });
const Ready = Type.Object({ ready: Type.Boolean() }, { additionalProperties: false });
const NotReady = { description: "Not ready.", content: { "application/json": { schema: Ready } } };

/** Health and metadata of the Open Inference Protocol (KServe v2); inference itself is `/v1/completions`. */
export const inferenceProtocolRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (
  app,
  { server },
) => {
  const { models, lifecycle } = server;
  const tags = ["open inference protocol"];
  const isReady = (state: string): boolean => !lifecycle.isDraining && state === "ready";
  const params = Type.Object({ name: Type.String() });

  app.get(
    "/v2",
    { schema: { tags, operationId: "serverMetadata", summary: "The server.", response: answer(Server) } },
    async () => ({ name: "mblm-server", version: server.version, extensions: [] }),
  );

  app.get(
    "/v2/health/live",
    { schema: { tags, operationId: "serverLive", summary: "Whether the server runs.", response: answer(Live) } },
    async () => ({ live: true }),
  );

  app.get(
    "/v2/health/ready",
    {
      schema: {
        tags,
        operationId: "serverReady",
        summary: "Whether requests are served.",
        response: { ...answer(Ready), 503: NotReady },
      },
    },
    async (_, reply) => {
      const ready = isReady(models.state);
      return reply.code(ready ? 200 : 503).send({ ready });
    },
  );

  app.get(
    "/v2/models/:name",
    {
      schema: {
        tags,
        operationId: "modelMetadata",
        summary: "One model.",
        params,
        response: { ...answer(ModelMetadata), ...failures(404) },
      },
    },
    async (request) => {
      const { info } = models.status(request.params.name);
      const port = (name: string) => ({ name, datatype: "BYTES", shape: [1] });
      return {
        name: info.id,
        versions: ["1"],
        platform: "onnxruntime_onnx",
        inputs: [port("prompt")],
        outputs: [port("text")],
      };
    },
  );

  app.get(
    "/v2/models/:name/ready",
    {
      schema: {
        tags,
        operationId: "modelReady",
        summary: "Whether a model is served.",
        params,
        response: { ...answer(Ready), 503: NotReady, ...failures(404) },
      },
    },
    async (request, reply) => {
      const ready = isReady(models.status(request.params.name).state);
      return reply.code(ready ? 200 : 503).send({ ready });
    },
  );
};
