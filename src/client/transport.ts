import { toApiError } from "./api-error.js";
import type { CallScope } from "./call-scope.js";
import type { CallOptions, ClientOptions } from "./client-options.js";
import { MblmConnectionError, MblmTimeoutError } from "./errors.js";
import { askedDelayMs, isRetriable, retryDelayMs } from "./retry.js";

const DEFAULT_MAX_RETRIES = 2;

/** One request, before its first try. */
export interface Call {
  readonly method: "GET" | "POST";
  /** Path and query, from the base URL on. */
  readonly path: string;
  readonly accept: string;
  readonly contentType?: string;
  readonly body?: unknown;
  /** In place of `body`: makes a stream, which can be sent only once, of a source to be released on the signal. */
  readonly openBody?: (signal: AbortSignal) => unknown;
  /** A status that is no failure beside 2xx. */
  readonly alsoFine?: number;
}

/** Sends requests until one is answered, or there is no point in another try. */
export class Transport {
  readonly #options: ClientOptions;
  readonly #base: string;
  readonly #fetch: typeof fetch;

  /** @throws TypeError when the base URL is none or `maxRetries` is no count */
  constructor(options: ClientOptions) {
    this.#options = options;
    checkOptions(options);
    const url = new URL(options.baseUrl);
    this.#base = url.origin + url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
    // Called as a function of nothing: a browser's fetch refuses any other `this`.
    this.#fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
  }

  url(path: string): string {
    return this.#base + path;
  }

  get apiKey(): string | undefined {
    return this.#options.apiKey;
  }

  /** The client's setting unless the call has its own. */
  timeoutMs(options: CallOptions): number | undefined {
    checkOptions(options);
    return options.timeoutMs ?? this.#options.timeoutMs;
  }

  /**
   * The head of a successful answer; its body is not read.
   *
   * @throws MblmApiError, MblmConnectionError, MblmTimeoutError, or the reason of an abort
   */
  async send(call: Call, options: CallOptions, scope: CallScope): Promise<Response> {
    const maxRetries = call.openBody ? 0 : (options.maxRetries ?? this.#options.maxRetries ?? DEFAULT_MAX_RETRIES);
    for (let attempt = 0; ; attempt++) {
      scope.check();
      const outcome = await this.#try(call, scope);
      if ("response" in outcome) return outcome.response;
      const isLast = attempt >= maxRetries || !outcome.mayRetry;
      const delayMs = isLast ? undefined : retryDelayMs(attempt, outcome.askedMs, Math.random());
      if (delayMs === undefined) throw outcome.error;
      await scope.sleep(delayMs);
    }
  }

  async #try(call: Call, scope: CallScope): Promise<Outcome> {
    let response: Response;
    try {
      response = await scope.wait(this.#fetch(this.url(call.path), this.#init(call, scope)));
    } catch (error) {
      // A server that was silent for too long may still be at work: doing it twice would make it slower.
      const mayRetry = error instanceof MblmConnectionError && !(error instanceof MblmTimeoutError);
      return { error, mayRetry, askedMs: undefined };
    }
    if (response.ok || response.status === call.alsoFine) return { response };
    const text = await scope.wait(response.text()).catch(() => {
      scope.check();
      return ""; // the status alone says enough
    });
    return {
      error: toApiError(response, text),
      mayRetry: isRetriable(response.status, response.headers),
      askedMs: askedDelayMs(response.headers, Date.now()),
    };
  }

  #init(call: Call, scope: CallScope): RequestInit {
    const { apiKey, headers } = this.#options;
    const body = call.openBody === undefined ? call.body : call.openBody(scope.signal);
    const init = {
      method: call.method,
      headers: {
        ...headers,
        accept: call.accept,
        ...(call.contentType === undefined ? {} : { "content-type": call.contentType }),
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      signal: scope.signal,
      ...(body === undefined ? {} : { body }),
      ...(call.openBody === undefined ? {} : { duplex: "half" }),
    };
    return init as RequestInit; // browsers' types lack `duplex`
  }
}

/** What came of one try. */
type Outcome =
  | { readonly response: Response }
  | { readonly error: unknown; readonly mayRetry: boolean; readonly askedMs: number | undefined };

function checkOptions({ maxRetries, timeoutMs }: CallOptions): void {
  if (maxRetries !== undefined && !(Number.isInteger(maxRetries) && maxRetries >= 0)) {
    throw new TypeError(`maxRetries: must be an integer ≥ 0, not ${maxRetries}`);
  }
  // Timers hold 31 bits and fire at once beyond.
  if (timeoutMs !== undefined && !(timeoutMs > 0 && timeoutMs < 2 ** 31)) {
    throw new TypeError(`timeoutMs: must be above 0 and below 2^31, not ${timeoutMs}`);
  }
}
