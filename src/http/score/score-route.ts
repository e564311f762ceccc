import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { PromptScores } from "../../core/generation-event.js";
import { outcomeOf } from "../../core/outcome.js";
import { MblmError } from "../../errors.js";
import { feedPieces, PIECE_BYTES } from "../../feeding/feed-pieces.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf } from "../access/caller-context.js";
import type { ServerContext } from "../app-context.js";
import { drained } from "../drained.js";
import { errorBody } from "../error-response.js";
import { failures } from "../schemas/errors.js";
import { shared } from "../schemas/shared.js";
import { withBody } from "../uploads/open-body.js";
import { ScoreAnswer, ScoreQuery } from "./score-schema.js";
import { ScoreSummary } from "./score-summary.js";

const NUMBERS = "application/x-ndjson";

const schema = {
  tags: ["scoring"],
  operationId: "score",
  summary: "How well the model predicts any bytes: bits per byte, per-byte log-probs or entropies.",
  description:
    "The body is the bytes themselves, of whatever content type and size; it is read as fast as it is scored, in constant " +
    "memory. Every byte is predicted from all bytes before it, the first one as in training. With `return=logprobs` or " +
    '`return=entropy` the answer is lines `{"offset": n, "logprobs": [nats, …]}` (or `entropy`) in order, and the summary ' +
    'as the last line; a failure on the way is a last line `{"error": …}`.',
  querystring: ScoreQuery,
  response: {
    200: {
      description: "The summary, or lines of numbers and the summary.",
      content: { "application/json": { schema: shared(ScoreAnswer) }, [NUMBERS]: { schema: { type: "string" } } },
    },
    ...failures(400, 404, 413, 429, 499, 500, 503),
  },
};

const config = { streamsBody: true, needsRoom: true };

/** POST /v1/score. */
export const scoreRoute: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  // Any content type is bytes: the handler reads the stream itself, as fast as it scores.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_, payload, done) => done(null, payload));

  app.post("/v1/score", { schema, config }, async (request, reply) => {
    const query = request.query as { return: "summary" | "logprobs" | "entropy"; model?: string; priority: number };
    const context = await contextOf(request, reply, server, query.model);
    const { engine, metrics } = context;
    return context.lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const scoring = { numTop: 0, entropy: query.return === "entropy" };
      const options = { id: `score-${request.id}`, scoring, priority: query.priority };
      const summary = new ScoreSummary();
      const head = {
        id: options.id,
        object: "score" as const,
        created: Math.floor(Date.now() / 1000),
        model: engine.info.id,
        system_fingerprint: context.fingerprint,
      };
      const finish = (): object => ({ ...head, ...summary.toJSON() });
      return withBody(request, reply, context, controller, async ({ body, stop }) => {
        const scores = feedPieces(engine, body.pieces(PIECE_BYTES, stop), options, stop);
        const counted = count(scores, summary, (numBytes) => metrics.scored(numBytes));
        if (query.return !== "summary") {
          const signals = { stop, gone: controller.signal };
          const lines = toLines(counted, query.return, finish);
          return writeLines(request, reply, lines, context.config.readerIdleSeconds, signals);
        }
        for await (const _ of counted);
        return finish();
      });
    });
  });
};

/** Adds what passes to the summary; at the end there must have been something. */
async function* count(
  scores: AsyncIterable<PromptScores>,
  summary: ScoreSummary,
  onBytes: (numBytes: number) => void,
): AsyncGenerator<PromptScores> {
  for await (const part of scores) {
    summary.add(part);
    onBytes(part.logprobs.length);
    yield part;
  }
  if (summary.numBytes === 0) {
    throw new MblmError("invalid_request", "body: must have at least one byte", { field: "body" });
  }
}

/** The numbers as the lines of the answer, and the summary. */
async function* toLines(
  scores: AsyncIterable<PromptScores>,
  kind: "logprobs" | "entropy",
  finish: () => object,
): AsyncGenerator<object> {
  let offset = 0;
  for await (const { logprobs, entropies } of scores) {
    yield { offset, [kind]: Array.from(kind === "entropy" ? entropies! : logprobs) };
    offset += logprobs.length;
  }
  yield finish();
}

/**
 * Writes lines of JSON as the answer. The first one is awaited before the status goes out, so that a refusal can still be one.
 *
 * @param idleSeconds as of `drained`
 * @param signals `stop` ends the answer with an error, `gone` without a word
 */
async function writeLines(
  request: FastifyRequest,
  reply: FastifyReply,
  lines: AsyncGenerator<object>,
  idleSeconds: number,
  { stop, gone }: { readonly stop: AbortSignal; readonly gone: AbortSignal },
): Promise<FastifyReply> {
  let line = await lines.next();
  reply.hijack();
  const response = reply.raw;
  response.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), "content-type": NUMBERS });
  const write = (object: object): boolean => response.write(`${JSON.stringify(object)}\n`);
  try {
    for (; !line.done; line = await lines.next()) {
      if (!write(line.value)) await drained(response, idleSeconds, stop);
    }
  } catch (thrown) {
    if (!gone.aborted) {
      const error = MblmError.from(thrown);
      if (outcomeOf(error.code) === "error" && !stop.aborted) request.log.error({ err: thrown }, "scoring failed");
      write(errorBody(error.code, error.message));
    }
  } finally {
    response.end();
  }
  return reply;
}
