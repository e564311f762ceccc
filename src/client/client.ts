import { type Completion, toCompletion, type WireCompletion } from "./completion.js";
import { type CompletionOptions, type Prompt, toWire } from "./completion-options.js";
import { CompletionStream } from "./completion-stream.js";
import { readScores, type Score, type ScoreInput, type ScorePiece, toScore, type WireScore } from "./score.js";
import { type Call, send, type TransportOptions } from "./transport.js";

export interface ClientOptions {
  /** Where the server is, without `/v1`. */
  readonly baseUrl: string;
  /** Sent as a bearer token, for a proxy that wants one. */
  readonly apiKey?: string;
  /** In place of the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
  /** Tries after the first (default 2). */
  readonly maxRetries?: number;
  /** Until an answer begins; not limited by default, since long prompts take long. */
  readonly timeoutMs?: number;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
}

/** A prompt, no list of them, and one choice: what can be streamed as bytes. */
export type StreamOptions = Omit<CompletionOptions, "prompt" | "n" | "bestOf" | "echo"> & { readonly prompt?: Prompt };

/** A served model. */
export interface Model {
  readonly id: string;
  /** Most bytes of prompt and output; null where nothing limits them. */
  readonly max_model_len: number | null;
  readonly vocabulary_size: number;
  readonly precision: string;
  readonly parameters: number;
}

/** Speaks to an mblm-server; runs in Node, Deno, Bun and browsers. Every method may throw `MblmApiError`. */
export class MblmClient {
  readonly #transport: TransportOptions;

  constructor({ baseUrl, apiKey, fetch, maxRetries = 2, timeoutMs }: ClientOptions) {
    this.#transport = {
      baseUrl: baseUrl.replace(/\/+$/, ""),
      apiKey,
      fetch: fetch ?? ((input, init) => globalThis.fetch(input, init)),
      maxRetries,
      timeoutMs,
    };
  }

  /** Generates whole outputs. */
  async complete(options: CompletionOptions, { signal }: CallOptions = {}): Promise<Completion> {
    const body = { ...toWire(options), return_token_ids: true };
    return toCompletion((await (await this.#post("/v1/completions", body, signal)).json()) as WireCompletion);
  }

  /** Generates one output and hands it out as it comes. */
  stream(options: StreamOptions, { signal }: CallOptions = {}): CompletionStream {
    const streaming = { stream: true, stream_options: { include_usage: true }, return_token_ids: true };
    const response = this.#post("/v1/completions", { ...toWire(options), ...streaming }, signal);
    response.catch(() => {}); // the iteration throws it
    return new CompletionStream(response);
  }

  /** How well the model predicts the input, which may be of any size. A stream cannot be sent twice: no retries. */
  async score(input: ScoreInput, { signal }: CallOptions = {}): Promise<Score> {
    const response = await send(this.#transport, scoreCall("summary", input, signal));
    return toScore((await response.json()) as WireScore);
  }

  /** Per-byte log-probs or entropies as they are computed; the iteration returns the summary. */
  async *scoreStream(
    input: ScoreInput,
    kind: "logprobs" | "entropy" = "logprobs",
    { signal }: CallOptions = {},
  ): AsyncGenerator<ScorePiece, Score, void> {
    return yield* readScores(await send(this.#transport, scoreCall(kind, input, signal)), kind);
  }

  /** The served models. */
  async models({ signal }: CallOptions = {}): Promise<Model[]> {
    const response = await send(this.#transport, { method: "GET", path: "/v1/models", signal });
    return ((await response.json()) as { data: Model[] }).data;
  }

  /** Whether the server answers and serves requests. */
  async isReady({ signal }: CallOptions = {}): Promise<boolean> {
    const once = { ...this.#transport, maxRetries: 0 };
    return send(once, { method: "GET", path: "/health", signal }).then(
      async (response) => {
        await response.body?.cancel();
        return true;
      },
      () => {
        signal?.throwIfAborted();
        return false;
      },
    );
  }

  #post(path: string, body: object, signal: AbortSignal | undefined): Promise<Response> {
    return send(this.#transport, { path, contentType: "application/json", body: JSON.stringify(body), signal });
  }
}

function scoreCall(kind: string, input: ScoreInput, signal: AbortSignal | undefined): Call {
  return {
    path: `/v1/score?return=${kind}`,
    contentType: "application/octet-stream",
    body: input as NonNullable<RequestInit["body"]>,
    isRepeatable: !(input instanceof ReadableStream),
    signal,
  };
}
