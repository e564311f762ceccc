import type { FastifyPluginAsyncTypebox } from "@fastify/type-provider-typebox";
import type { FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";
import { checkRequest, requireRoom } from "../../core/check-request.js";
import type { GenerationEvent } from "../../core/generation-event.js";
import type { GenerationRequest } from "../../core/generation-request.js";
import { outcomeOf } from "../../core/outcome.js";
import { stateLength } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import { afterFeeding, type FedPrompt, feedPrompt } from "../../feeding/feed-prompt.js";
import { PromptProgress } from "../../feeding/prompt-progress.js";
import type { AcquiredSession } from "../../session/session-store.js";
import { abortOnDisconnect } from "../abort-on-disconnect.js";
import { contextOf, modelOf, sessionsOf } from "../access/caller-context.js";
import { type AdmittedSequence, admit } from "../admission.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { wholeCompletion, writeCompletion } from "../completions/answer-completion.js";
import { toGenerationRequests } from "../completions/completion-request.js";
import { CompletionAnswer } from "../completions/completions-schema.js";
import { observeSequence } from "../observe-sequence.js";
import { failures, WORK_FAILURES } from "../schemas/errors.js";
import { shared } from "../schemas/shared.js";
import { committed, requireFit, resumed } from "../sessions/session-sequence.js";
import { SseWriter } from "../sse-writer.js";
import { declaredLength, requireDeclaredFits } from "./declared-length.js";
import { openBody } from "./open-body.js";
import { describeProgress } from "./upload-progress.js";
import { readUploadQuery, type UploadQuery } from "./upload-query.js";
import { writeBytes } from "./write-bytes.js";

const schema = {
  tags: ["completions"],
  operationId: "completeUpload",
  summary: "Continue a prompt of any length, which is the body itself.",
  description:
    "The body is the prompt's bytes, of whatever content type; it is fed to the model while it arrives, in constant memory, " +
    "and held back when the model is slower. Parameters are the fields of POST /v1/completions: texts as they are, all " +
    "others as JSON. With `return=events` and `progress`, `progress` events (UploadProgress) come before the completion's.",
  response: {
    200: {
      description: "The completion.",
      content: {
        "application/json": { schema: shared(CompletionAnswer) },
        "text/event-stream": { schema: {} },
        "application/octet-stream": { schema: Type.Unsafe<Buffer>({ type: "string", format: "binary" }) },
      },
    },
    ...failures(...WORK_FAILURES, 431),
  },
};

const config = { streamsBody: true, needsRoom: true };

/** POST /v1/completions/upload. */
export const uploadRoute: FastifyPluginAsyncTypebox<{ server: ServerContext }> = async (app, { server }) => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_, payload, done) => done(null, payload));
  app.post("/v1/completions/upload", { schema, config }, async (request, reply) => {
    const arrivedAt = server.clock.now();
    const query = readUploadQuery(request);
    const { completion } = query;
    requireDeclaredFits(request.headers, server.config.maxUploadBytes);
    const model = await modelOf(completion.model, completion.session_id, sessionsOf(request.caller, server));
    const context = await contextOf(request, reply, server, model);
    const { config, constraints, engine, lifecycle, sessions } = context;
    const id = `cmpl-${completion.request_id ?? request.id}`;
    const requests = toGenerationRequests(completion, id, engine.info, constraints, config);
    for (const one of requests) checkRequest(one, engine.info);
    request.caller?.limiter.requirePlaces(requests.length);
    return lifecycle.run(async (controller) => {
      abortOnDisconnect(request, reply, controller);
      const session = completion.session_id === null ? undefined : await sessions.acquire(completion.session_id);
      try {
        return await answerUpload(request, reply, context, query, { id, requests, session, controller, arrivedAt });
      } finally {
        await session?.end();
      }
    });
  });
};

interface Upload {
  readonly id: string;
  /** What is generated behind the prompt. */
  readonly requests: readonly GenerationRequest[];
  readonly session: AcquiredSession | undefined;
  readonly controller: AbortController;
  readonly arrivedAt: number;
}

async function answerUpload(
  request: FastifyRequest,
  reply: FastifyReply,
  context: AppContext,
  query: UploadQuery,
  { id, requests, session, controller, arrivedAt }: Upload,
): Promise<unknown> {
  const { config, clock, engine, metrics } = context;
  const state = (await session?.read())?.state;
  requireFit(state, engine.info);
  const total = declaredLength(request.headers);
  const lengthBefore = state === undefined ? 0 : stateLength(state);
  requireRoom(lengthBefore + (total ?? 0), query.completion.max_tokens, engine.info.maxLength);
  const following = session ? requests.map((one) => resumed(one, state)) : requests;

  const open = openBody(request, reply, context, controller);
  const progress = new PromptProgress(() => open.body.numReceived, clock);
  let hasBegun = false;
  let noteBegun = (): void => {};
  const begun = new Promise<void>((resolve) => {
    noteBegun = () => {
      hasBegun = true;
      resolve();
    };
  });
  const feeding = { request: following[0]!, progress, clock, onBegun: () => noteBegun() };
  const fed = feedPrompt(engine, open.body, open.stop, feeding).finally(() => open.close());
  const taken = fed.then((prompt) => takeGenerations(context, following, prompt, controller));
  let reportFed = (): void => {};
  const sequences = following.map((_, i) => {
    const events = eventsBehind(fed, taken, i, () => reportFed());
    const kept = session ? committed(events, session.commit) : events;
    return observeSequence(kept, metrics, clock, arrivedAt);
  });
  try {
    await (query.progressSeconds === null ? taken : Promise.race([begun, taken]));
  } catch (thrown) {
    if (hasBegun) metrics.unfinished(outcomeOf(MblmError.from(thrown).code), clock.now() - arrivedAt);
    throw thrown;
  }

  if (query.return === "bytes") return writeBytes(reply, sequences[0]!, config.readerIdleSeconds, controller);
  const head = {
    id,
    object: "text_completion" as const,
    created: Math.floor(Date.now() / 1000),
    model: engine.info.id,
    system_fingerprint: context.fingerprint,
  };
  const answer = { head, body: query.completion, prompts: following.map(() => undefined), sequences };
  if (query.return === "completion") return wholeCompletion(answer);
  const writer = new SseWriter(reply, controller.signal, config);
  if (query.progressSeconds === null) return writeCompletion(answer, writer, reply, controller);
  const report = (): void => writer.offer("progress", describeProgress(progress, total));
  const timer = setInterval(report, query.progressSeconds * 1000);
  reportFed = () => {
    clearInterval(timer);
    progress.finish();
    report();
    reportFed = () => {};
  };
  report();
  try {
    return await writeCompletion(answer, writer, reply, controller);
  } finally {
    clearInterval(timer);
  }
}

/** Has the engine take what is generated behind a prompt. A prompt that has been fed in part is not refused any more. */
async function takeGenerations(
  { engine }: AppContext,
  following: readonly GenerationRequest[],
  { state, rest, numBytes }: FedPrompt,
  controller: AbortController,
): Promise<AdmittedSequence[]> {
  const requests = following.map((one) => ({
    ...one,
    prompt: rest,
    waitsForRoom: rest.length < numBytes,
    ...(state === undefined ? {} : { resume: state }),
  }));
  return admit(engine, requests, controller);
}

/** The events of the generation with this index, when its prompt has been fed. */
async function* eventsBehind(
  fed: Promise<FedPrompt>,
  taken: Promise<readonly AdmittedSequence[]>,
  index: number,
  onFed: () => void,
): AsyncGenerator<GenerationEvent> {
  yield* afterFeeding((await taken)[index]!, await fed, onFed);
}
