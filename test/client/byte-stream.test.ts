import { randomUUID } from "node:crypto";
import { pipeline } from "node:stream/promises";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import {
  type ByteStream,
  MblmClient,
  type SocketClass,
  type StreamConnection,
  toWebStreams,
} from "../../src/client/index.js";
import { toDuplex } from "../../src/client-node/index.js";
import { makeRandom } from "../engine/requests.js";
import { complete } from "../http/api.js";
import { untilIdle, useApp } from "../http/test-app.js";
import { ChaosProxy } from "./chaos-proxy.js";

const app = useApp("mamba2-transformer");
const connections: StreamConnection[] = [];
afterEach(() => {
  for (const connection of connections.splice(0)) connection.close();
});
function connect(url = app().url, maxRetries = 8, socket: typeof WebSocket = WebSocket): StreamConnection {
  const webSocket = socket as unknown as SocketClass;
  const connection = new MblmClient({ baseUrl: url }).connect({ webSocket, maxRetries });
  connections.push(connection);
  return connection;
}
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const expected = async (prompt: Uint8Array | string, options: object): Promise<number[]> =>
  (await complete(app(), { prompt: [...Buffer.from(prompt as string)], ...options, return_token_ids: true }))
    .choices[0]!.token_ids!;

describe("a byte stream", () => {
  it("pushes, generates, says how it ended, and goes on", async () => {
    const stream = await connect().open();
    await stream.push("Once upon ");
    await stream.push(Buffer.from("a time"));
    const first = stream.generate({ maxTokens: 20, temperature: 0 });
    const second = stream.generate({ maxTokens: 5, seed: 3, temperature: 1.4 });
    const bytes = await first.bytes();
    expect([...bytes]).toEqual(await expected("Once upon a time", { max_tokens: 20, temperature: 0 }));
    expect(await first.result).toMatchObject({
      finishReason: "length",
      stopReason: undefined,
      usage: { promptTokens: 16, completionTokens: 20 },
      contextBytes: 36,
    });
    const context = Buffer.concat([Buffer.from("Once upon a time"), bytes]);
    expect([...(await second.bytes())]).toEqual(await expected(context, { max_tokens: 5, seed: 3, temperature: 1.4 }));
    expect(stream.contextBytes).toBe(41);
    await stream.close();
    await expect(stream.push("x")).rejects.toThrow("closed");
  });

  it("is cancelled by leaving the loop, and what was generated is context", async () => {
    const stream = await connect().open({ window: 64 });
    await stream.push("go");
    const generation = stream.generate({ maxTokens: 1_000_000, temperature: 0 });
    for await (const _ of generation) break;
    expect(await generation.result).toMatchObject({ finishReason: "cancelled" });
    const { length } = await stream.generate({ maxTokens: 4, temperature: 0 }).bytes();
    expect(length).toBe(4);
    expect(stream.contextBytes).toBe(2 + (await generation.result).usage.completionTokens + 4);
  });

  it("lets later ones run when the loop of one that has ended is left", async () => {
    const stream = await connect().open();
    await stream.push("go");
    const ended = stream.generate({ maxTokens: 4, temperature: 0 });
    const running = stream.generate({ maxTokens: 2000, temperature: 0 });
    await ended.result;
    for await (const _ of ended) break;
    ended.cancel();
    expect(await running.result).toMatchObject({ finishReason: "length", usage: { completionTokens: 2000 } });
  });

  it("forks, saves and scores", async () => {
    const connection = connect();
    const stream = await connection.open({ score: true });
    const scores = stream.scores();
    await stream.push("The quick");
    expect((await scores.next()).value).toMatchObject({ offset: 0, logprobs: { length: 9 } });
    const copy = await stream.fork();
    await stream.push(" brown");
    await copy.push(" red");
    const outputs = [stream, copy].map((one) => one.generate({ maxTokens: 6, temperature: 0 }).bytes());
    expect([...(await outputs[0]!)]).toEqual(await expected("The quick brown", { max_tokens: 6, temperature: 0 }));
    expect([...(await outputs[1]!)]).toEqual(await expected("The quick red", { max_tokens: 6, temperature: 0 }));
    const id = await copy.snapshot();
    await expect(copy.snapshot(id)).rejects.toMatchObject({ code: "session_conflict" });
    const session = await connection.open({ sessionId: id });
    expect(session.contextBytes).toBe(19);
  });

  it("acknowledges scores as they come, so that the server need not keep them", async () => {
    const acknowledged: number[] = [];
    class Overheard extends WebSocket {
      override send(data: string | Uint8Array): void {
        const said = typeof data === "string" ? JSON.parse(data) : {};
        if (said.type === "ack") acknowledged.push(said.messages);
        super.send(data);
      }
    }
    const stream = await connect(app().url, 0, Overheard).open({ score: true });
    const scores = stream.scores();
    for (let k = 0; k < 70; k++) {
      await stream.push("x");
      await scores.next();
    }
    expect(acknowledged.at(-1)).toBeGreaterThanOrEqual(64);
  });

  it("says why it cannot be opened, or a generation not be had, and goes on", async () => {
    const connection = connect();
    await expect(connection.open({ sessionId: "none" })).rejects.toMatchObject({ code: "session_not_found" });
    const stream = await connection.open({ sessionId: randomUUID(), create: true });
    await stream.push("abc");
    await expect(stream.generate({ temperature: 7 }).bytes()).rejects.toMatchObject({ param: "temperature" });
    await expect(stream.generate({ maxTokens: 10_000_000 }).result).rejects.toMatchObject({ param: "max_tokens" });
    expect([...(await stream.generate({ maxTokens: 3, temperature: 0 }).bytes())]).toEqual(
      await expected("abc", { max_tokens: 3, temperature: 0 }),
    );
    expect(() => stream.generate({ maxTokns: 3 } as object)).toThrow("no such field");
    await expect(connect("http://127.0.0.1:9", 1).open()).rejects.toThrow("no connection");
  }, 60_000);

  it("is a Duplex, and a pair of web streams", async () => {
    const connection = connect();
    const options = { maxTokens: 30, temperature: 0 };
    const output: Buffer[] = [];
    const duplex = toDuplex(await connection.open(), options);
    await pipeline(["It was ", "a dark", " night"], duplex, async (source) => {
      for await (const piece of source) output.push(piece as Buffer);
    });
    const want = await expected("It was a dark night", { max_tokens: 30, temperature: 0 });
    expect([...Buffer.concat(output)]).toEqual(want);

    const source = new Blob(["It was a dark night"]).stream() as ReadableStream<Uint8Array>;
    const readable = source.pipeThrough(toWebStreams(await connection.open(), options));
    expect([...new Uint8Array(await new Response(readable).arrayBuffer())]).toEqual(want);

    const endless = toDuplex(await connection.open(), { maxTokens: 1_000_000 });
    endless.end("x");
    for await (const _ of endless) break;
    await untilIdle(app());
  });
});

describe("a session's stream on connections that break", () => {
  let proxy: ChaosProxy;
  beforeAll(async () => {
    proxy = await ChaosProxy.start(() => Number(new URL(app().url).port));
    return () => proxy.stop();
  });

  it("loses and repeats nothing, wherever it breaks", async () => {
    const random = makeRandom(1234);
    const stream = await connect(proxy.url).open({ sessionId: "chaos", create: true, window: 300 });
    const whole: number[] = [];
    const cutter = setInterval(() => proxy.cutAfter(1 + random(1500)), 50);
    try {
      for (let turn = 0; turn < 40; turn++) {
        const pushed = Uint8Array.from({ length: random(60) }, () => random(256));
        for (const byte of pushed) void stream.push(Uint8Array.of(byte));
        whole.push(...pushed);
        const options = {
          maxTokens: random(150),
          temperature: 1.1,
          seed: turn,
          stop: [Uint8Array.of(random(256), random(256))],
        };
        const bytes = await stream.generate(options).bytes();
        const want = await expected(Uint8Array.from(whole), {
          max_tokens: options.maxTokens,
          temperature: 1.1,
          seed: turn,
          stop: [[...options.stop[0]!]],
          include_stop_str_in_output: true,
        });
        // A stop that was hit is hidden, but part of the context.
        const isStopped = want.length > bytes.length;
        expect([...bytes]).toEqual(isStopped ? want.slice(0, -2) : want);
        whole.push(...want);
      }
    } finally {
      clearInterval(cutter);
      proxy.cutAfter(Number.POSITIVE_INFINITY);
    }
    expect(proxy.numCuts).toBeGreaterThan(3);
    expect(stream.contextBytes).toBe(whole.length);
    await stream.close();
  }, 120_000);

  it("fails at once what is no session, and in the end what finds no server", async () => {
    const streams: ByteStream[] = [];
    const connection = connect(proxy.url);
    streams.push(await connection.open());
    const generation = streams[0]!.generate({ maxTokens: 1_000_000 });
    for await (const piece of generation) {
      expect(text(piece).length).toBeGreaterThan(0);
      proxy.cut();
      break;
    }
    await expect(generation.result).rejects.toThrow("connection broke");
    await expect(streams[0]!.push("x")).rejects.toThrow("connection broke");
    await untilIdle(app());
  });
});
