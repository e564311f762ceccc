import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { hashSecret, makeSecret, spellHash } from "../../src/access/api-key.js";
import { MblmClient, type SocketClass } from "../../src/client/index.js";
import { scratchFolder } from "../scratch-folder.js";
import { type Completion, json, post } from "./api.js";
import { startApp, type TestApp } from "./test-app.js";

const path = join(scratchFolder("keys"), "keys.json");
const secrets = Object.fromEntries(
  ["alice", "bob", "scraper", "slow", "thrifty", "writer", "single", "pair", "dripping"].map((name) => [
    name,
    makeSecret(),
  ]),
);
const entry = (name: string, more: object = {}) => ({
  name,
  hash: spellHash(hashSecret(secrets[name]!)),
  scopes: ["generate", "sessions"],
  ...more,
});
const entries = [
  entry("alice"),
  entry("bob"),
  entry("scraper", { scopes: ["metrics"] }),
  entry("slow", { limits: { requests_per_minute: 2 } }),
  entry("writer", { scopes: ["generate"] }),
  entry("single", { limits: { concurrency: 1 } }),
  entry("pair", { limits: { requests_per_minute: 3 } }),
  entry("dripping", { limits: { bytes_per_second: 150 } }),
  entry("thrifty", { limits: { bytes_per_second: 10, concurrency: 1 } }),
];
writeFileSync(path, JSON.stringify(entries));

const OPEN = ["/health", "/health/live", "/health/ready", "/health/startup", "/v2/health/live", "/v2/health/ready"];

let app: TestApp;
const routes: string[] = [];
beforeAll(async () => {
  app = await startApp("mamba2-transformer", { apiKeyFile: path });
  // What Fastify itself says that there is, documented or not: a tree, four characters a level.
  const above: string[] = [];
  for (const line of app.server.printRoutes({ commonPrefix: false }).split("\n")) {
    const match = /^(.*)[├└]── (\S+) \(/.exec(line);
    if (match === null) continue;
    const level = match[1]!.length / 4;
    above[level] = (above[level - 1] ?? "") + match[2];
    routes.push(above[level]!);
  }
});
afterAll(() => app.stop());

const as = (name: string, path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`${app.url}${path}`, { ...init, headers: { ...init.headers, authorization: `Bearer ${secrets[name]}` } });
const send = (name: string, path: string, body: object): Promise<Response> =>
  post(app, path, body, { headers: { "content-type": "application/json", authorization: `Bearer ${secrets[name]}` } });

describe("API keys", () => {
  it("are asked for on every route but health, for every method and path there is or is not", async () => {
    expect(routes.length).toBeGreaterThan(25);
    expect(routes).toEqual(expect.arrayContaining(["/v1/stream", "/v1/sessions/:id/fork", "/tokenizer_info"]));
    for (const url of [...routes.map((route) => route.replace(/:\w+/g, "x")), "/nothing"]) {
      for (const method of ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
        const isOpen = OPEN.includes(url) && (method === "GET" || method === "HEAD");
        const response = await fetch(app.url + url, { method });
        expect([method, url, response.status === 401]).toEqual([method, url, !isOpen]);
        if (isOpen || method === "HEAD") continue;
        expect(response.headers.get("www-authenticate")).toContain("Bearer");
        const { error } = await json(response);
        expect(Object.keys(error).sort()).toEqual(["code", "message", "param", "type"]);
        expect(error.code).toBe("invalid_api_key");
      }
    }
  });

  it("open what their scopes say", async () => {
    expect((await send("alice", "/v1/completions", { prompt: "a" })).status).toBe(200);
    expect((await as("scraper", "/metrics")).status).toBe(200);
    const refused = await as("alice", "/metrics");
    expect(refused.status).toBe(403);
    expect(refused.headers.get("www-authenticate")).toContain('error="insufficient_scope", scope="metrics"');
    expect((await json(refused)).error.code).toBe("insufficient_scope");
    expect((await send("scraper", "/v1/completions", { prompt: "a" })).status).toBe(403);
    expect((await as("scraper", "/v1/models")).status).toBe(200);
    for (const wrong of ["Bearer x", "Basic x", `Bearer ${secrets.alice}x`, `Bearer ${spellHash(Buffer.alloc(32))}`]) {
      const refused = await fetch(`${app.url}/v1/models`, { headers: { authorization: wrong } });
      expect(refused.status).toBe(401);
      expect(refused.headers.get("x-request-id")).not.toBeNull();
    }
  });

  it("see their own sessions only", async () => {
    expect((await send("alice", "/v1/sessions", { id: "tale" })).status).toBe(201);
    expect((await send("alice", "/v1/completions", { prompt: "a", session_id: "tale" })).status).toBe(200);
    expect((await json<{ id: string }>(await as("alice", "/v1/sessions/tale"))).id).toBe("tale");
    for (const id of ["tale", "alice~tale", "alice%7Etale"]) {
      expect((await as("bob", `/v1/sessions/${id}`)).status).toBe(404);
      expect((await as("bob", `/v1/sessions/${id}/snapshot`)).status).toBe(404);
      expect((await as("bob", `/v1/sessions/${id}`, { method: "DELETE" })).status).toBe(404);
      expect((await as("bob", `/v1/sessions/${id}/append`, { method: "POST", body: "x" })).status).toBe(404);
      expect((await send("bob", "/v1/completions", { prompt: "a", session_id: id })).status).toBe(404);
    }
    expect(await json(await as("bob", "/v1/sessions"))).toMatchObject({ data: [] });
    expect((await send("bob", "/v1/sessions", { id: "tale" })).status).toBe(201);
    const taken = await json(await send("bob", "/v1/sessions", { id: "tale" }));
    expect(taken.error.message).toBe("id: the session tale exists already");
  });

  it("of a browser's WebSocket are a subprotocol", async () => {
    const open = (protocols: string[]): Promise<string> =>
      new Promise((resolve) => {
        const socket = new WebSocket(`${app.url.replace("http", "ws")}/v1/stream`, protocols);
        socket.on("error", (error) => resolve(error.message));
        socket.on("open", () => {
          socket.terminate();
          resolve(socket.protocol);
        });
      });
    expect(await open(["mblm.stream.v1", `mblm.key.${secrets.alice}`])).toBe("mblm.stream.v1");
    expect(await open(["mblm.stream.v1"])).toContain("401");
    expect(await open(["mblm.stream.v1", `mblm.key.${secrets.scraper}`])).toContain("403");
    const connections = (): Promise<number> =>
      new Promise((resolve) => app.server.server.getConnections((_, count) => resolve(count)));
    const before = await connections();
    for (let i = 0; i < 20; i++) await open(["mblm.stream.v1"]);
    await expect.poll(connections).toBeLessThanOrEqual(before);
  });

  it("are sent by the client library, over WebSockets, too", async () => {
    const client = new MblmClient({ baseUrl: app.url, apiKey: secrets.alice });
    const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass, maxRetries: 0 });
    const stream = await connection.open({ sessionId: "by-client", create: true });
    await stream.close();
    connection.close();
    expect((await as("alice", "/v1/sessions/by-client")).status).toBe(200);
    expect((await as("bob", "/v1/sessions/by-client")).status).toBe(404);
    const stranger = new MblmClient({ baseUrl: app.url }).connect({
      webSocket: WebSocket as unknown as SocketClass,
      maxRetries: 0,
    });
    await expect(stranger.open()).rejects.toThrow("no connection");
  });

  it("without the scope for sessions use none by any way", async () => {
    const body = { prompt: "a", session_id: "tale" };
    expect((await send("writer", "/v1/completions", { prompt: "a" })).status).toBe(200);
    expect((await send("writer", "/v1/completions", body)).status).toBe(403);
    expect((await as("writer", "/v1/sessions")).status).toBe(403);
    const client = new MblmClient({ baseUrl: app.url, apiKey: secrets.writer });
    const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass, maxRetries: 0 });
    await (await connection.open()).close();
    await expect(connection.open({ sessionId: "tale" })).rejects.toThrow("does not have the scope sessions");
    connection.close();
  });

  it("limit sequences at a time alone", async () => {
    const controller = new AbortController();
    const endless = { prompt: "a", max_tokens: 1e6, stream: true };
    const headers = { "content-type": "application/json", authorization: `Bearer ${secrets.single}` };
    const open = await post(app, "/v1/completions", endless, { headers, signal: controller.signal });
    const refused = await send("single", "/v1/completions", { prompt: "b" });
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    controller.abort();
    await open.text().catch(() => {});
    await expect.poll(async () => (await send("single", "/v1/completions", { prompt: "b" })).status).toBe(200);
    for (const response of [
      await send("single", "/v1/completions", { prompt: "b", n: 2 }),
      await as("single", "/v1/completions/upload?n=2", { method: "POST", body: "b" }),
    ]) {
      expect(response.status).toBe(400);
      expect((await json(response)).error.message).toMatch(/has 2 sequences; this key is limited to 1 /);
    }
  });

  it("limit generations of a WebSocket as requests", async () => {
    const client = new MblmClient({ baseUrl: app.url, apiKey: secrets.pair });
    const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass, maxRetries: 0 });
    const stream = await connection.open(); // the upgrade is the first of three requests
    for (let i = 0; i < 2; i++) await stream.generate({ maxTokens: 1 }).result;
    await expect(stream.generate({ maxTokens: 1 }).result).rejects.toThrow("3 requests a minute");
    connection.close();
  });

  it("slow a WebSocket's generation that has begun, as they do no more to one over HTTP", async () => {
    const client = new MblmClient({ baseUrl: app.url, apiKey: secrets.dripping });
    const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass, maxRetries: 0 });
    const stream = await connection.open({ window: 40 });
    await stream.push("go");
    const bytes: number[] = [];
    for await (const piece of stream.generate({ maxTokens: 400, temperature: 0 })) {
      bytes.push(...piece);
      await sleep(20); // the server waits for the reader
    }
    const whole = { prompt: "go", max_tokens: 400, temperature: 0, return_token_ids: true };
    expect(bytes).toEqual(
      (await json<Completion>(await send("alice", "/v1/completions", whole))).choices[0]!.token_ids,
    );
    connection.close();
  });

  it("have limits, and hear when there is room again", async () => {
    const statuses = [];
    for (let i = 0; i < 3; i++) statuses.push(await send("slow", "/v1/completions", { prompt: "a" }));
    expect(statuses.map(({ status }) => status)).toEqual([200, 200, 429]);
    expect(Number(statuses[2]!.headers.get("retry-after"))).toBeGreaterThan(20);
    expect((await json(statuses[2]!)).error.code).toBe("rate_limited");
    expect((await send("thrifty", "/v1/completions", { prompt: "x".repeat(200) })).status).toBe(200);
    expect((await send("thrifty", "/v1/completions", { prompt: "x" })).status).toBe(429);
    expect((await send("alice", "/v1/completions", { prompt: "a" })).status).toBe(200);
  });

  it("change while the server runs; a broken file changes nothing", async () => {
    writeFileSync(path, JSON.stringify([{ ...entry("alice"), hash: secrets.alice }]));
    expect(() => app.keys.reload()).toThrow(/alice: hash: must be sha256/);
    expect(() => app.keys.reload()).not.toThrow(secrets.alice);
    expect((await as("bob", "/v1/models")).status).toBe(200);
    const next = makeSecret();
    writeFileSync(path, JSON.stringify([entry("alice", { hash: [entry("alice").hash, spellHash(hashSecret(next))] })]));
    app.keys.reload();
    expect((await as("bob", "/v1/models")).status).toBe(401);
    for (const secret of [next, secrets.alice]) {
      const headers = { authorization: `Bearer ${secret}` };
      expect((await fetch(`${app.url}/v1/sessions/tale`, { headers })).status).toBe(200);
    }
  });
});
