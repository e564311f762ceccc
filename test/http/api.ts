import { createParser } from "eventsource-parser";
import { expect } from "vitest";
import type { TestApp } from "./test-app.js";

export interface Choice {
  readonly text: string;
  readonly index: number;
  readonly finish_reason: string | null;
  readonly stop_reason: string | number | number[] | null;
  readonly token_ids?: number[];
  readonly prompt_token_ids?: number[];
  readonly prompt_logprobs?: (Record<string, { logprob: number; rank: number | null; decoded_token: string }> | null)[];
  readonly logprobs: {
    readonly tokens: string[];
    readonly token_logprobs: (number | null)[];
    readonly top_logprobs: (Record<string, number> | null)[];
    readonly text_offset: number[];
  } | null;
}

export interface Completion {
  readonly id: string;
  readonly choices: Choice[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly total_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  } | null;
}

/** The body of any answer. */
export async function json<T = { error: { param: string | null; code: string; message: string } }>(
  response: Response,
): Promise<T> {
  return (await response.json()) as T;
}

/** POST of JSON. */
export function post(app: TestApp, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${app.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...init,
  });
}

/** The answer of a request that must succeed. */
export async function ask<T>(app: TestApp, path: string, body: unknown): Promise<T> {
  const response = await post(app, path, body);
  const answer = await response.json();
  expect(response.status, JSON.stringify(answer)).toBe(200);
  return answer as T;
}

export const complete = (app: TestApp, body: object): Promise<Completion> => ask(app, "/v1/completions", body);

/** Data of all events of a stream, read by an independent parser; the last must be [DONE]. */
export async function streamEvents<T>(app: TestApp, path: string, body: object): Promise<T[]> {
  const response = await post(app, path, { ...body, stream: true });
  expect(response.status).toBe(200);
  const data: string[] = [];
  const parser = createParser({ onEvent: (event) => data.push(event.data) });
  parser.feed(await response.text());
  expect(data.pop()).toBe("[DONE]");
  return data.map((text) => JSON.parse(text) as T);
}

export const stream = (app: TestApp, body: object): Promise<Completion[]> => streamEvents(app, "/v1/completions", body);
