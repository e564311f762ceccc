import type { AddressInfo } from "node:net";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { MblmClient, type SocketClass } from "../../src/client/index.js";
import { makeRandom } from "../engine/requests.js";
import { hasValkey, ValkeyServer } from "../session/valkey-server.js";
import { ask, complete, json, post } from "./api.js";
import { startApp, type TestApp } from "./test-app.js";

/** Two servers behind a proxy that knows nothing: every connection goes to the next one. */
describe.runIf(hasValkey)("replicas that share sessions through Valkey", () => {
  let valkey: ValkeyServer;
  const replicas: TestApp[] = [];
  const sockets = new Set<Socket>();
  const counts = [0, 0];
  let next = 0;
  const proxy = createServer((client) => {
    const chosen = next++ % 2;
    counts[chosen]!++;
    const server = connectTcp(Number(new URL(replicas[chosen]!.url).port), "127.0.0.1");
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => {}).on("close", () => to.destroy());
      from.pipe(to);
    }
  });
  let front: { readonly url: string };

  beforeAll(async () => {
    valkey = await ValkeyServer.start();
    for (let i = 0; i < 2; i++) replicas.push(await startApp("mamba2-transformer", { sessionUrl: valkey.url }));
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    front = { url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` };
  }, 60_000);
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
    for (const replica of replicas) await replica.stop();
    await valkey.stop();
  });

  /** A new connection for every request. */
  const init = { headers: { "content-type": "application/json", connection: "close" } };
  const through = (path: string, body: object): Promise<Response> => post(front as TestApp, path, body, init);

  it("a session goes on wherever a request lands", async () => {
    const random = makeRandom(8);
    const ids = await Promise.all(
      Array.from({ length: 4 }, async () => (await json<{ id: string }>(await through("/v1/sessions", {}))).id),
    );
    const histories = new Map<string, number[]>(ids.map((id) => [id, []]));
    for (let i = 0; i < 80; i++) {
      const id = ids[random(ids.length)]!;
      const history = histories.get(id)!;
      const prompt = Array.from({ length: random(20) }, () => random(256));
      const options = { max_tokens: 1 + random(15), seed: i, temperature: 1.2, return_token_ids: true };
      const answer = await through("/v1/completions", { ...options, prompt, session_id: id });
      expect(answer.status).toBe(200);
      const { token_ids } = (await json<{ choices: { token_ids: number[] }[] }>(answer)).choices[0]!;
      history.push(...prompt);
      const whole = await complete(replicas[i % 2]!, { ...options, prompt: history });
      expect(token_ids).toEqual(whole.choices[0]!.token_ids);
      history.push(...token_ids);
    }
    expect(Math.min(...counts)).toBeGreaterThan(20);
  });

  it("a stream that lost its connection goes on at the other one, in the middle of a generation", async () => {
    const client = new MblmClient({ baseUrl: front.url });
    const connection = client.connect({ webSocket: WebSocket as unknown as SocketClass });
    const stream = await connection.open({ sessionId: "wandering", create: true });
    await stream.push("Once upon a time");
    const generation = stream.generate({ maxTokens: 6000, temperature: 0.8, seed: 5 });
    const before = [...counts];
    const bytes: number[] = [];
    let cutAt = 500;
    for await (const piece of generation) {
      bytes.push(...piece);
      if (bytes.length < cutAt) continue;
      cutAt += 1500;
      for (const socket of sockets) socket.resetAndDestroy();
      sockets.clear();
    }
    const body = { prompt: "Once upon a time", max_tokens: 6000, temperature: 0.8, seed: 5, return_token_ids: true };
    expect(bytes).toEqual((await complete(replicas[0]!, body)).choices[0]!.token_ids);
    expect(counts.every((count, i) => count > before[i]!)).toBe(true);
    await stream.close();
    connection.close();
  }, 60_000);

  it("a replica that shuts down hands its streams over", async () => {
    const leaving = await startApp("mamba2-transformer", { sessionUrl: valkey.url });
    const targets = [leaving, replicas[0]!];
    const moving = createServer((socket) => {
      const target = connectTcp(Number(new URL(targets[0]!.url).port), "127.0.0.1");
      socket.on("error", () => {}).on("close", () => target.destroy());
      target.on("error", () => {}).on("close", () => socket.destroy());
      socket.pipe(target).pipe(socket);
    });
    await new Promise<void>((resolve) => moving.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(moving.address() as AddressInfo).port}`;
    const connection = new MblmClient({ baseUrl: url }).connect({ webSocket: WebSocket as unknown as SocketClass });
    const stream = await connection.open({ sessionId: "moved", create: true });
    await stream.push("x");
    const options = { maxTokens: 20_000, temperature: 0.7, seed: 9 };
    const generation = stream.generate(options);
    const pieces = generation[Symbol.asyncIterator]();
    const bytes = [...(await pieces.next()).value!];
    targets.shift();
    await leaving.lifecycle.drain(0.2);
    await leaving.stop();
    for await (const piece of pieces) bytes.push(...piece);
    const body = { prompt: "x", max_tokens: 20_000, temperature: 0.7, seed: 9, return_token_ids: true };
    expect(bytes).toEqual((await complete(replicas[1]!, body)).choices[0]!.token_ids);
    connection.close();
    moving.close();
  }, 120_000);

  it("says that sessions cannot be used while Valkey is gone; the rest works", async () => {
    await ask(replicas[0]!, "/v1/completions", { prompt: "x", max_tokens: 1 });
    await valkey.kill();
    await expect
      .poll(async () => (await (await fetch(`${replicas[0]!.url}/metrics`)).text()).includes("mblm_session_store_up 0"))
      .toBe(true);
    const refused = await post(replicas[0]!, "/v1/completions", { session_id: "wandering", max_tokens: 1 });
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await json(refused)).toMatchObject({ error: { code: "store_unavailable" } });
    await ask(replicas[0]!, "/v1/completions", { prompt: "x", max_tokens: 1 });
    await valkey.resume();
    const body = { session_id: "wandering", max_tokens: 1 };
    await expect
      .poll(async () => (await post(replicas[0]!, "/v1/completions", body)).status, { timeout: 10_000 })
      .toBe(200);
  }, 30_000);
});
