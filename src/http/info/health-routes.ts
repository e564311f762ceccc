import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import { Type } from "typebox";
import type { ServerContext } from "../app-context.js";
import { answer } from "../schemas/answer.js";

const Status = Type.Object({ status: Type.String() }, { additionalProperties: false });
const tags = ["service"];

/** GET /health, /health/startup, /health/ready, /health/live, for what starts, feeds and restarts servers. */
export const healthRoutes: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { models, lifecycle } = server;
  const readiness = (): string => (lifecycle.isDraining ? "draining" : models.state);
  /** 200 while the status is the one that is wished for. */
  const route = (
    url: string,
    operationId: string,
    summary: string,
    read: () => { status: string; ok: boolean },
  ): void => {
    const response = {
      ...answer(Status, "Yes."),
      503: { description: "No; `status` says why.", content: { "application/json": { schema: Status } } },
    };
    app.get(url, { schema: { tags, operationId, summary, response } }, async (_, reply) => {
      const { status, ok } = read();
      return reply.code(ok ? 200 : 503).send({ status });
    });
  };
  const ready = (): { status: string; ok: boolean } => ({ status: readiness(), ok: readiness() === "ready" });

  route("/health", "health", "Whether requests are served.", ready);
  route("/health/ready", "healthReady", "Whether requests are served: loaded, warmed up, not draining.", ready);
  route("/health/startup", "healthStartup", "Whether the models were loaded, and have generated once.", () => {
    const isStarted = models.state !== "starting";
    return { status: isStarted ? "started" : "starting", ok: isStarted };
  });
  route(
    "/health/live",
    "healthLive",
    "Whether the process answers; an engine that breaks down restarts by itself.",
    () => ({
      status: "alive",
      ok: true,
    }),
  );
};
