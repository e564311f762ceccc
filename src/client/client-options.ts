/** Settings of a client; the same for all its calls. */
export interface ClientOptions {
  /** Where the server is, e.g. `http://127.0.0.1:8000`; a path before `/v1` may follow, `/v1` itself is ignored. */
  readonly baseUrl: string;
  /** Sent as `authorization: Bearer …`; by WebSockets as a subprotocol. */
  readonly apiKey?: string | undefined;
  /** Headers of every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** In place of the global `fetch`. */
  readonly fetch?: typeof fetch | undefined;
  /** Tries after the first one, ≥ 0; default 2. Only what failed before an answer began is tried again. */
  readonly maxRetries?: number | undefined;
  /**
   * Longest silence in milliseconds: until the answer begins, and then between two parts of its body. Default: no limit but
   * fetch's own. A call that timed out is not tried again. Streams send a sign of life every few seconds; an answer that is
   * not streamed begins when all of it has been generated.
   */
  readonly timeoutMs?: number | undefined;
}

/** Settings of one call; they win over the client's. */
export interface CallOptions {
  /** Cancels the call at any time, which frees its place in the server at once. */
  readonly signal?: AbortSignal | undefined;
  readonly maxRetries?: number | undefined;
  readonly timeoutMs?: number | undefined;
}
