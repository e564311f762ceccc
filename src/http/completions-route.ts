import { once } from "node:events";
import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { Usage } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { MblmError } from "../errors.js";
import { type AdmittedSequence, admit } from "./admission.js";
import type { AppContext } from "./app-context.js";
import { toGenerationRequests } from "./completion-request.js";
import {
  type ChoicePiece,
  type CompletionHead,
  choiceBody,
  collectCompletion,
  toPieces,
  usageBody,
} from "./completion-response.js";
import { CompletionBody } from "./completions-schema.js";
import { errorBody } from "./error-response.js";
import { observeSequence } from "./observe-sequence.js";
import { SseWriter } from "./sse-writer.js";

/** POST /v1/completions, JSON and SSE. */
export const completionsRoute: FastifyPluginAsyncTypebox<{ context: AppContext }> = async (app, { context }) => {
  app.post("/v1/completions", { schema: { body: CompletionBody } }, async (request, reply) => {
    const { body } = request;
    const { engine, config, metrics, clock } = context;
    const arrivedAt = clock.now();
    if (body.model !== undefined && body.model !== engine.info.id) {
      throw new MblmError("model_not_found", `model: ${body.model} is not served here; ${engine.info.id} is`, {
        field: "model",
      });
    }
    if (body.stream_options && !body.stream) {
      throw new MblmError("invalid_request", "stream_options: needs stream: true", { field: "stream_options" });
    }
    const requests = toGenerationRequests(body, `cmpl-${request.id}`, engine.info, config.maxBatchPrompts);
    return context.lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const admitted = await admit(engine, requests, controller);
      const sequences = admitted.map((events) => observeSequence(events, metrics, clock, arrivedAt));
      const head: CompletionHead = {
        id: `cmpl-${request.id}`,
        object: "text_completion",
        created: Math.floor(Date.now() / 1000),
        model: engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      if (!body.stream) return collectCompletion(head, body, requests, sequences);
      const writer = new SseWriter(reply, controller.signal, config.pingSeconds);
      await streamCompletion(writer, head, body, requests, sequences, controller);
      return reply;
    });
  });
};

/** The response closes early exactly when the client has gone: its slots are freed in whatever phase they are. */
function abortOnDisconnect(request: FastifyRequest, reply: FastifyReply, controller: AbortController): void {
  void once(reply.raw, "close", { signal: controller.signal }).then(
    () => {
      if (reply.raw.writableFinished) return;
      request.log.info("client disconnected");
      controller.abort();
    },
    () => {},
  );
}

async function streamCompletion(
  writer: SseWriter,
  head: CompletionHead,
  body: CompletionBody,
  requests: readonly GenerationRequest[],
  sequences: readonly AdmittedSequence[],
  controller: AbortController,
): Promise<void> {
  const wantsUsage = body.stream_options?.include_usage === true;
  const usages: Usage[] = [];
  const pump = async (events: AdmittedSequence, index: number): Promise<void> => {
    let offset = 0;
    for await (const piece of toPieces(index, events)) {
      // A piece whose bytes all wait for the rest of a character has nothing to say unless ids are asked for.
      if (isSilent(piece, body)) continue;
      const prompt = offset === 0 ? requests[index]!.prompt : undefined;
      const choice = choiceBody(piece, body, prompt, offset);
      offset += piece.ids.length;
      if (piece.usage) usages[index] = piece.usage;
      await writer.send({ ...head, choices: [choice], ...(wantsUsage ? { usage: null } : {}) });
    }
  };
  try {
    await Promise.all(sequences.map(pump));
    if (wantsUsage) await writer.send({ ...head, choices: [], usage: usageBody(usages, body.n) });
  } catch (thrown) {
    // The status is out already: the error is the stream's last word before [DONE].
    if (!controller.signal.aborted) {
      const error = MblmError.from(thrown);
      await writer.send(errorBody(error.code, error.message)).catch(() => {});
    }
    controller.abort();
  } finally {
    writer.end();
  }
}

function isSilent(piece: ChoicePiece, body: CompletionBody): boolean {
  return piece.text === "" && piece.finishReason === null && !body.return_token_ids && !piece.logprobs;
}
