import { requestIdOf } from "./api-error.js";
import { bodyText } from "./body-text.js";
import { CallScope } from "./call-scope.js";
import type { CallOptions, ClientOptions } from "./client-options.js";
import type { ChoicePiece, ChoiceStreamEnd, Completion, CompletionChoice, StreamEnd } from "./completion.js";
import { asCompletion, toChoicePiece, toHead, toUsage } from "./completion-answer.js";
import type { ChoiceStreamRequest, CompletionRequest, StreamRequest } from "./completion-request.js";
import { mapSingleChoice, readCompletionStream } from "./completion-stream.js";
import { MblmProtocolError } from "./errors.js";
import { readObject } from "./read-json.js";
import { numChoices, toRequestBody } from "./request-body.js";
import { ResultStream } from "./result-stream.js";
import type { ScoreKind, ScoreOptions, ScorePiece, ScoreSource, ScoreSummary } from "./score.js";
import { readScoreStream, toScoreSummary } from "./score-answer.js";
import { toScoreBody } from "./score-body.js";
import { type Health, type Model, toModel, type WireModel } from "./service.js";
import { StreamConnection } from "./stream/connection.js";
import { toProgress } from "./stream/messages.js";
import type { ConnectOptions } from "./stream/stream-options.js";
import { type Call, Transport } from "./transport.js";
import { toUploadQuery, type UploadOptions } from "./upload.js";
import type { ImageAnswers, ImageSource, VqaOptions } from "./vqa.js";
import { toImageAnswers } from "./vqa-answer.js";
import { toVqaForm } from "./vqa-form.js";
import type { WireProgress } from "./wire.js";

const JSON_TYPE = "application/json";

/**
 * Talks to an mblm-server. Calls reject with MblmApiError, MblmConnectionError, MblmTimeoutError or MblmProtocolError, with
 * the reason of an abort, and with TypeError where the arguments are wrong.
 */
export class MblmClient {
  readonly #transport: Transport;

  /** @throws TypeError when an option is no such thing */
  constructor(options: ClientOptions) {
    this.#transport = new Transport(options);
  }

  /**
   * Continues prompts; resolves when all is generated. What takes minutes is better streamed: nothing tells a long wait from
   * a lost connection here.
   */
  async complete(request: CompletionRequest, options: CallOptions = {}): Promise<Completion> {
    const body = { ...toRequestBody(request), stream: false, return_token_ids: true };
    const { value, response } = await this.#json(post("/v1/completions", body), options);
    const wire = asCompletion(value);
    const choices = wire.choices.map((choice) => {
      const piece = toChoicePiece(choice, request.echo ?? false);
      if (piece.finishReason === null) throw new MblmProtocolError("the completion is not finished");
      return piece as CompletionChoice;
    });
    return { ...toHead(wire, requestIdOf(response)), choices, usage: wire.usage ? toUsage(wire.usage) : undefined };
  }

  /** Continues a prompt as exact bytes, in pieces that are not empty. Special ids have no bytes and are left out. */
  streamBytes(request: StreamRequest, options: CallOptions = {}): ResultStream<Uint8Array<ArrayBuffer>, StreamEnd> {
    return this.#stream(request, options, (pieces) => mapSingleChoice(pieces, ({ bytes }) => bytes));
  }

  /** Continues a prompt as text, in pieces of whole characters; bytes that are no UTF-8 become U+FFFD. */
  streamText(request: StreamRequest, options: CallOptions = {}): ResultStream<string, StreamEnd> {
    return this.#stream(request, options, (pieces) => mapSingleChoice(pieces, ({ text }) => text));
  }

  /** Continues any number of prompts, any number of times each, with log-probs if asked for. */
  streamChoices(request: ChoiceStreamRequest, options: CallOptions = {}): ResultStream<ChoicePiece, ChoiceStreamEnd> {
    return this.#stream(request, options, (pieces) => pieces);
  }

  /**
   * Continues a prompt of any length, which is sent as it is read and fed to the model meanwhile, as exact bytes. Browsers send
   * streams over HTTP/2 only. A source that is a stream is sent once: nothing is tried again.
   */
  streamUpload(
    source: ScoreSource,
    options: UploadOptions & CallOptions = {},
  ): ResultStream<Uint8Array<ArrayBuffer>, StreamEnd> {
    const { signal, timeoutMs, maxRetries, ...generation } = options;
    const { onProgress } = generation;
    const path = `/v1/completions/upload?${toUploadQuery(generation)}`;
    const accept = "text/event-stream";
    const contentType = "application/octet-stream";
    const call: Call = { method: "POST", path, accept, contentType, ...toScoreBody(source) };
    const report = (wire: WireProgress): void =>
      onProgress?.({ ...toProgress(wire), totalBytes: wire.total_bytes ?? undefined });
    const expected = { numChoices: 1, echo: false, onProgress: report };
    return this.#open(call, { signal, timeoutMs, maxRetries }, (response, scope) =>
      mapSingleChoice(readCompletionStream(response, expected, scope), ({ bytes }) => bytes),
    );
  }

  /** How probable bytes are. Sources of any size are scored as they are sent; browsers send streams over HTTP/2 only. */
  async score(source: ScoreSource, options: ScoreOptions & CallOptions = {}): Promise<ScoreSummary> {
    const { value, response } = await this.#json(scoreCall(source, "summary", JSON_TYPE, options), options);
    return toScoreSummary(value, response);
  }

  /** One number per byte as they are computed, then the summary as the stream's `result`. */
  scoreStream<K extends ScoreKind>(
    source: ScoreSource,
    options: ScoreOptions & CallOptions & { readonly return: K },
  ): ResultStream<ScorePiece<K>, ScoreSummary> {
    const kind = options.return;
    const call = scoreCall(source, kind, "application/x-ndjson", options);
    return this.#open(call, options, (response, scope) => readScoreStream(response, kind, scope));
  }

  /** Questions about an image, for a model that was trained to answer them; several at once cost little more than one. */
  async vqa(
    image: ImageSource,
    questions: string | readonly string[],
    options: VqaOptions & CallOptions = {},
  ): Promise<ImageAnswers> {
    const list = typeof questions === "string" ? [questions] : questions;
    const body = toVqaForm(image, list, options);
    const call: Call = { method: "POST", path: "/v1/vqa", accept: JSON_TYPE, body };
    const { value, response } = await this.#json(call, options);
    return toImageAnswers(value, list.length, response);
  }

  /** The served models. */
  async models(options: CallOptions = {}): Promise<Model[]> {
    const { value } = await this.#json(get("/v1/models"), options);
    if (!Array.isArray(value.data)) throw new MblmProtocolError("the answer is no list of models");
    return (value.data as WireModel[]).map(toModel);
  }

  /** Asks once: a server that is not ready is an answer, not an error. */
  async health(options: CallOptions = {}): Promise<Health> {
    const call = { ...get("/health"), alsoFine: 503 };
    const { value, response } = await this.#json(call, { ...options, maxRetries: 0 });
    return { isReady: response.ok, status: String(value.status) };
  }

  /** The ids of a text: its bytes, or the id of a special token whose text it is. */
  async tokenize(text: string, options: CallOptions = {}): Promise<number[]> {
    const { value } = await this.#json(post("/tokenize", { prompt: text }), options);
    if (!Array.isArray(value.tokens)) throw new MblmProtocolError("the answer has no tokens");
    return value.tokens as number[];
  }

  /** The text of ids; bytes that are no UTF-8 become U+FFFD. */
  async detokenize(ids: readonly number[] | Uint8Array, options: CallOptions = {}): Promise<string> {
    const { value } = await this.#json(post("/detokenize", { tokens: Array.from(ids) }), options);
    if (typeof value.prompt !== "string") throw new MblmProtocolError("the answer has no text");
    return value.prompt;
  }

  /** A WebSocket for byte streams; it connects when the first one is opened. */
  connect(options: ConnectOptions = {}): StreamConnection {
    return new StreamConnection(
      this.#transport.url("/v1/stream").replace(/^http/, "ws"),
      this.#transport.apiKey,
      options,
    );
  }

  #stream<T, R>(
    request: StreamRequest | ChoiceStreamRequest,
    options: CallOptions,
    map: (pieces: AsyncGenerator<ChoicePiece, ChoiceStreamEnd>) => AsyncGenerator<T, R>,
  ): ResultStream<T, R> {
    const body = {
      ...toRequestBody(request),
      stream: true,
      stream_options: { include_usage: true },
      return_token_ids: true,
    };
    const expected = { numChoices: numChoices(body), echo: request.echo ?? false };
    const call = { ...post("/v1/completions", body), accept: "text/event-stream" };
    return this.#open(call, options, (response, scope) => map(readCompletionStream(response, expected, scope)));
  }

  /** A stream whose request goes out when it is first read. */
  #open<T, R>(
    call: Call,
    options: CallOptions,
    read: (response: Response, scope: CallScope) => AsyncGenerator<T, R>,
  ): ResultStream<T, R> {
    const transport = this.#transport;
    async function* source(scope: CallScope): AsyncGenerator<T, R, void> {
      return yield* read(await transport.send(call, options, scope), scope);
    }
    return new ResultStream(source, options.signal, transport.timeoutMs(options));
  }

  async #json(call: Call, options: CallOptions): Promise<{ value: Record<string, unknown>; response: Response }> {
    const scope = new CallScope(options.signal, this.#transport.timeoutMs(options));
    try {
      const response = await this.#transport.send(call, options, scope);
      const parts: string[] = [];
      for await (const part of bodyText(response, JSON_TYPE, scope)) parts.push(part);
      return { value: readObject(parts.join("")), response };
    } finally {
      scope.close();
    }
  }
}

function get(path: string): Call {
  return { method: "GET", path, accept: JSON_TYPE };
}

function post(path: string, body: object): Call {
  return { method: "POST", path, accept: JSON_TYPE, contentType: JSON_TYPE, body: JSON.stringify(body) };
}

function scoreCall(
  source: ScoreSource,
  kind: ScoreKind | "summary",
  accept: string,
  { model, priority }: ScoreOptions,
): Call {
  const query = new URLSearchParams({ return: kind });
  if (model !== undefined) query.set("model", model);
  if (priority !== undefined) query.set("priority", String(priority));
  const body = toScoreBody(source);
  return { method: "POST", path: `/v1/score?${query}`, accept, contentType: "application/octet-stream", ...body };
}
