import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { hashSecret, makeSecret, spellHash } from "../../src/access/api-key.js";
import { json, post } from "./api.js";
import { startApp, type TestApp } from "./test-app.js";

const path = join(mkdtempSync(join(tmpdir(), "keys-")), "keys.json");
const secrets = Object.fromEntries(["alice", "bob", "scraper", "slow", "thrifty"].map((name) => [name, makeSecret()]));
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
  entry("thrifty", { limits: { bytes_per_second: 10, concurrency: 1 } }),
];
writeFileSync(path, JSON.stringify(entries));

let app: TestApp;
const routes: { method: string; url: string }[] = [];
beforeAll(async () => {
  app = await startApp("mamba2-transformer", { apiKeyFile: path });
  for (const url of Object.keys(app.server.swagger().paths ?? {})) routes.push({ method: "GET", url });
});
afterAll(() => app.stop());

const as = (name: string, path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`${app.url}${path}`, { ...init, headers: { ...init.headers, authorization: `Bearer ${secrets[name]}` } });
const send = (name: string, path: string, body: object): Promise<Response> =>
  post(app, path, body, { headers: { "content-type": "application/json", authorization: `Bearer ${secrets[name]}` } });

describe("API keys", () => {
  it("are asked for on every route but health, for every method and path there is or is not", async () => {
    expect(routes.length).toBeGreaterThan(15);
    for (const url of [...routes.map((route) => route.url.replace(/\{\w+\}/g, "x")), "/v1/stream", "/nothing"]) {
      for (const method of ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
        const isOpen = /health/.test(url) && (method === "GET" || method === "HEAD");
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

  it("have limits, and hear when there is room again", async () => {
    const statuses = [];
    for (let i = 0; i < 3; i++) statuses.push(await send("slow", "/v1/completions", { prompt: "a" }));
    expect(statuses.map(({ status }) => status)).toEqual([200, 200, 429]);
    expect(Number(statuses[2]!.headers.get("retry-after"))).toBeGreaterThan(20);
    expect((await json(statuses[2]!)).error.code).toBe("rate_limited");
    expect((await send("thrifty", "/v1/completions", { prompt: "x".repeat(200), n: 2 })).status).toBe(429);
    expect((await send("thrifty", "/v1/completions", { prompt: "x".repeat(200) })).status).toBe(429);
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
