import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach } from "vitest";
import type { ClientOptions } from "../../src/client/client-options.js";
import { MblmClient } from "../../src/client/mblm-client.js";

/** A request as it came. */
export interface Received {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Resolves when the connection or the answer has ended, whoever ended it. */
  readonly closed: Promise<unknown>;
  readonly response: ServerResponse;
}

export type Answer = (response: ServerResponse, request: Received) => unknown;

export interface ScriptedServer {
  readonly url: string;
  /** Since the test began. */
  readonly received: Received[];
  /** What the next requests are answered with, in order. */
  script(...answers: Answer[]): void;
  client(options?: Partial<ClientOptions>): MblmClient;
}

/** A real HTTP server that says what a test tells it to. A request that no test expects is a 418, never tried again. */
export function useScriptedServer(): ScriptedServer {
  let answers: Answer[] = [];
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const answer = answers.shift() ?? json({ error: { message: "not in the script" } }, 418);
    const parts: Buffer[] = [];
    const closed = once(response, "close");
    try {
      for await (const part of request) parts.push(part);
    } catch {
      return; // the client gave up on sending
    }
    const { method = "", url = "", headers } = request;
    const entry = { method, url, headers, body: Buffer.concat(parts), closed, response };
    received.push(entry);
    await answer(response, entry);
  });
  beforeAll(async () => {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  });
  beforeEach(() => {
    answers = [];
    received.length = 0;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    get url() {
      return url();
    },
    received,
    script: (...next) => {
      answers = next;
    },
    client: (options = {}) => new MblmClient({ baseUrl: url(), ...options }),
  };
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Answer {
  return (response) => {
    response.writeHead(status, { "content-type": "application/json; charset=utf-8", ...headers });
    response.end(JSON.stringify(body));
  };
}

/** Writes the parts one by one, as packets of their own as far as the system lets it; then ends, or as told. */
export function parts(
  type: string,
  list: readonly (string | Uint8Array)[],
  end: (response: ServerResponse) => unknown = (response) => response.end(),
): Answer {
  return async (response) => {
    response.socket?.setNoDelay(true);
    response.writeHead(200, { "content-type": type, "x-request-id": "req-7" });
    for (const part of list) {
      response.write(part);
      await setImmediate();
    }
    await end(response);
  };
}

export const SSE = "text/event-stream; charset=utf-8";
export const NDJSON = "application/x-ndjson";
export const events = (...list: string[]): Answer => parts(SSE, list);

/** Cuts the connection without ending the answer. */
export const cut = (response: ServerResponse): unknown => response.socket?.destroy();
/** Leaves the answer open. */
export const hold = (): void => {};

export interface Piece {
  text?: string;
  token_ids?: number[];
  index?: number;
  finish_reason?: string | null;
  [key: string]: unknown;
}

const HEAD = { id: "cmpl-1", object: "text_completion", created: 17, model: "books", system_fingerprint: "fp" };
export const USAGE = {
  prompt_tokens: 2,
  completion_tokens: 3,
  total_tokens: 5,
  prompt_tokens_details: { cached_tokens: 1 },
};

/** A chunk, or a whole completion. */
export function completion(choices: Piece[], usage: unknown = null): object {
  const defaults = { index: 0, text: "", logprobs: null, finish_reason: null, stop_reason: null, token_ids: [] };
  return { ...HEAD, choices: choices.map((choice) => ({ ...defaults, ...choice })), usage };
}

export const event = (data: unknown): string => `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
/** One chunk with one piece of text that is UTF-8, or with bytes that have none. */
export const chunk = (piece: Piece): string =>
  event(completion([{ token_ids: [...new TextEncoder().encode(piece.text ?? "")], ...piece }]));
export const LAST = chunk({ finish_reason: "length" });
export const USAGE_EVENT = event(completion([], USAGE));
export const DONE = event("[DONE]");

export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const piece of stream) all.push(piece);
  return all;
}

export async function joined(stream: AsyncIterable<Uint8Array>): Promise<number[]> {
  return (await collect(stream)).flatMap((piece) => [...piece]);
}

/** What a promise is rejected with. */
export async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (thrown: unknown) => thrown,
  );
}
