import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";
import { MblmError } from "../../errors.js";
import type { ServerContext } from "../app-context.js";
import { answer } from "../schemas/answer.js";
import { failures } from "../schemas/errors.js";
import type { ModelStatus } from "./model-registry.js";

const Index = Type.Array(
  Type.Object(
    {
      name: Type.String(),
      version: Type.String(),
      state: Type.Enum(["READY", "LOADING", "UNAVAILABLE"]),
      reason: Type.String({ description: "Why it is not ready; empty if it is." }),
    },
    { additionalProperties: false },
  ),
);
const params = Type.Object({ name: Type.String() });
const tags = ["open inference protocol"];

/** The model repository of the Open Inference Protocol: what there is, and loading and unloading it. */
export const repositoryRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { models, config } = server;

  app.post(
    "/v2/repository/index",
    {
      schema: {
        tags,
        operationId: "repositoryIndex",
        summary: "Every model of the server, loaded or not.",
        response: answer(Index),
      },
    },
    async () => models.list().map(toIndex),
  );

  app.post(
    "/v2/repository/models/:name/load",
    {
      schema: {
        tags,
        operationId: "loadModel",
        summary: "Load a model from its folder, in place of what is loaded of it.",
        description:
          "Answers when the new one serves. Requests that are open then end with the old one; those that come later go to " +
          "the new one. When it cannot be loaded, everything stays as it was, and `code` says why: `bundle_invalid` where the " +
          "bundle is missing, damaged, another model's, or gives no numbers; `runtime_unavailable` or `engine_failed` where the " +
          "server cannot run it; `overloaded` where there is no memory for it beside the models in use.",
        params,
        response: { ...answer(Type.Object({}, { additionalProperties: false })), ...failures(403, 404, 429, 500) },
      },
    },
    async (request) => {
      requireAllowed();
      await models.reload(request.params.name);
      return {};
    },
  );

  app.post(
    "/v2/repository/models/:name/unload",
    {
      schema: {
        tags,
        operationId: "unloadModel",
        summary: "Unload a model until it is loaded again; what is open on it goes on.",
        params,
        response: { ...answer(Type.Object({}, { additionalProperties: false })), ...failures(403, 404, 500) },
      },
    },
    async (request) => {
      requireAllowed();
      await models.unload(request.params.name);
      return {};
    },
  );

  function requireAllowed(): void {
    if (config.allowModelChanges) return;
    const setting = "--allow-model-changes true";
    throw new MblmError("insufficient_scope", `Models can be changed on a server with ${setting} only.`);
  }
};

function toIndex({ info, state, reason }: ModelStatus) {
  const name = info.id;
  if (state === "ready") return { name, version: "1", state: "READY" as const, reason: "" };
  const isLoading = state === "loading" || state === "restarting";
  return {
    name,
    version: "1",
    state: isLoading ? ("LOADING" as const) : ("UNAVAILABLE" as const),
    reason: reason ?? state,
  };
}
