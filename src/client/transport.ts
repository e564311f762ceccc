import { MblmApiError, toApiError } from "./api-error.js";

export interface TransportOptions {
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  readonly fetch: typeof globalThis.fetch;
  readonly maxRetries: number;
  /** Until the answer's headers are there. */
  readonly timeoutMs: number | undefined;
}

export interface Call {
  readonly method?: "GET" | "POST";
  readonly path: string;
  readonly contentType?: string;
  readonly body?: BodyInit;
  /** Whether the body can be sent again: a stream cannot. */
  readonly isRepeatable?: boolean;
  readonly signal?: AbortSignal | undefined;
}

type BodyInit = NonNullable<RequestInit["body"]>;

const RETRIED_STATUSES = new Set([408, 409, 429]);
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;
/** Longer waits than this are not obeyed: the caller should know instead. */
const MAX_OBEYED_DELAY_MS = 60_000;

/**
 * Sends a request and returns its successful answer. Failed connections and the statuses 408, 409, 429 and 5xx are tried
 * again as the server asks (`retry-after-ms`, `retry-after`, `x-should-retry`), or after doubling delays with jitter.
 *
 * @throws MblmApiError, or the signal's reason
 */
export async function send(options: TransportOptions, call: Call): Promise<Response> {
  const numTries = 1 + (call.isRepeatable === false ? 0 : options.maxRetries);
  for (let attempt = 1; ; attempt++) {
    const outcome = await attemptOnce(options, call);
    if (outcome instanceof Response && outcome.ok) return outcome;
    if (attempt >= numTries || !isRetried(outcome)) throw await toError(outcome);
    if (outcome instanceof Response) await outcome.body?.cancel();
    await delay(delayBefore(attempt, outcome), call.signal);
  }
}

async function attemptOnce(options: TransportOptions, call: Call): Promise<Response | MblmApiError> {
  const timeout = new AbortController();
  const timer =
    options.timeoutMs === undefined ? undefined : setTimeout(() => timeout.abort(), Math.max(0, options.timeoutMs));
  const signals = call.signal === undefined ? [timeout.signal] : [timeout.signal, call.signal];
  try {
    return await options.fetch(options.baseUrl + call.path, {
      method: call.method ?? "POST",
      headers: headersOf(options, call),
      signal: AbortSignal.any(signals),
      ...(call.body === undefined ? {} : { body: call.body }),
      ...(call.isRepeatable === false ? { duplex: "half" } : {}),
    } as RequestInit);
  } catch (cause) {
    call.signal?.throwIfAborted();
    if (timeout.signal.aborted) {
      return new MblmApiError(`No answer within ${options.timeoutMs} ms.`, { code: "timeout", cause });
    }
    return new MblmApiError(`Cannot reach ${options.baseUrl}: ${(cause as Error).message}`, {
      code: "connection_failed",
      cause,
    });
  } finally {
    clearTimeout(timer);
  }
}

function headersOf({ apiKey }: TransportOptions, { contentType }: Call): Record<string, string> {
  return {
    ...(contentType === undefined ? {} : { "content-type": contentType }),
    ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
  };
}

function isRetried(outcome: Response | MblmApiError): boolean {
  if (!(outcome instanceof Response)) return true;
  const wish = outcome.headers.get("x-should-retry");
  if (wish === "true" || wish === "false") return wish === "true";
  return RETRIED_STATUSES.has(outcome.status) || outcome.status >= 500;
}

/** Milliseconds before try `attempt + 1`. */
function delayBefore(attempt: number, outcome: Response | MblmApiError): number {
  const asked = outcome instanceof Response ? askedDelay(outcome.headers) : undefined;
  if (asked !== undefined && asked >= 0 && asked <= MAX_OBEYED_DELAY_MS) return asked;
  const backoff = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return backoff * (1 - 0.25 * Math.random());
}

function askedDelay(headers: Headers): number | undefined {
  const milliseconds = Number.parseFloat(headers.get("retry-after-ms") ?? "");
  if (!Number.isNaN(milliseconds)) return milliseconds;
  const after = headers.get("retry-after");
  if (after === null) return undefined;
  const seconds = Number(after);
  if (!Number.isNaN(seconds)) return 1000 * seconds;
  const date = Date.parse(after);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

async function toError(outcome: Response | MblmApiError): Promise<MblmApiError> {
  if (!(outcome instanceof Response)) return outcome;
  const text = await outcome.text().catch(() => "");
  const requestId = outcome.headers.get("x-request-id") ?? undefined;
  try {
    return toApiError(JSON.parse(text), outcome.status, requestId);
  } catch {
    return toApiError(text, outcome.status, requestId);
  }
}
