import { Readable } from "node:stream";
import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyRequest } from "fastify";
import type { VqaTemplate } from "../../vqa/vqa-template.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf } from "../access/caller-context.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { invalid } from "../generation-options.js";
import { answer } from "../schemas/answer.js";
import { failures, WORK_FAILURES } from "../schemas/errors.js";
import { withDefaults } from "../schemas/nullable.js";
import { shared } from "../schemas/shared.js";
import { validated } from "../validated.js";
import type { Vision } from "./vision.js";
import { readForm } from "./vqa-form.js";
import { fromBody, fromForm, type VqaRequest } from "./vqa-request.js";
import { vqaBody } from "./vqa-response.js";
import { VqaAnswer, VqaBody } from "./vqa-schema.js";

const schema = {
  tags: ["vision"],
  operationId: "answerVisualQuestions",
  summary: "Answer questions about an image.",
  description:
    "For models that were trained to (see `vqa` in `GET /v1/models`). The image is JPEG, PNG or WebP, as a file of a form or " +
    "in base64; of an animation the first frame counts. The answer is the most likely one of the model's answers. Several " +
    "questions cost little more than one where the model reads the image first: its state is computed once, and kept for " +
    "later requests.",
  response: { ...answer(shared(VqaAnswer), "The answers."), ...failures(...WORK_FAILURES) },
};

/** POST /v1/vqa, JSON and multipart/form-data. */
export const vqaRoute: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  const { config, clock, lifecycle } = server;
  app.addContentTypeParser("multipart/form-data", (_, payload, done) => done(null, payload));
  app.removeContentTypeParser("text/plain");

  app.post("/v1/vqa", { schema, config: { needsRoom: true } }, async (request, reply) => {
    const arrivedAt = clock.now();
    const read = await readRequest(request);
    return lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const context = await contextOf(request, reply, server, read.model);
      const vision = requireVision(context);
      const asked = read.check(vision.template);
      const id = `vqa-${asked.requestId ?? request.id}`;
      const image = await vision.read(asked.image, controller.signal);
      const answers = await vision.answer(image, asked.questions, { ...asked.options, id }, controller);
      const head = {
        id,
        created: Math.floor(Date.now() / 1000),
        model: context.engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      return vqaBody(head, asked, image, answers, clock.now() - arrivedAt);
    });
  });

  /** The model that is asked, and what checks the request for it. */
  async function readRequest(request: FastifyRequest): Promise<{
    readonly model: string | null | undefined;
    readonly check: (template: VqaTemplate) => VqaRequest;
  }> {
    if (request.body instanceof Readable) {
      const form = await readForm(request, request.body, config);
      return { model: form.fields.model, check: (template) => fromForm(form, template, config) };
    }
    const body = withDefaults(VqaBody, validated(request, VqaBody, "body", request.body));
    return { model: body.model, check: (template) => fromBody(body, template, config) };
  }
};

function requireVision({ vision, engine }: AppContext): Vision {
  if (vision !== undefined) return vision;
  throw invalid("model", `${engine.info.id} was not trained to answer questions about images`);
}
