import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Intake, MAX_WAITING_BYTES, PUSH_WINDOW } from "../../src/http/stream/intake.js";
import { keepAlive } from "../../src/http/stream/keep-alive.js";
import { complete } from "./api.js";
import { FakeConnection } from "./fake-connection.js";
import { settled } from "./fake-models.js";
import { Client } from "./stream-client.js";
import { untilIdle, useApp } from "./test-app.js";

const app = useApp("mamba2-transformer", { pingSeconds: 0.3 });
const patient = useApp("mamba2-transformer", { pingSeconds: 3600 });
const fakeConnection = async () => {
  const fake = await FakeConnection.open("mamba2");
  return { ...fake, say: fake.say.bind(fake), push: fake.push.bind(fake) };
};
const PIECE = new Uint8Array(65_532);

/** Opens a stream whose generation waits for acknowledgements. */
async function openWaiting(client: Client, stream: number): Promise<number> {
  client.say({ type: "open", stream, window: 10 });
  client.say({ type: "generate", stream, max_tokens: 100_000, temperature: 0 });
  await expect.poll(() => client.bytesOf(stream).length).toBe(10);
  return ((await client.next("opened", stream)) as unknown as { window: number }).window;
}

async function cancel(client: Client, stream: number): Promise<void> {
  client.say({ type: "cancel", stream });
  const finished = () => client.messages.some((message) => message.type === "finished" && message.stream === stream);
  await expect
    .poll(() => {
      client.say({ type: "ack", stream, bytes: client.bytesOf(stream).length, messages: 0 });
      return finished();
    })
    .toBe(true);
}

describe("a client that pushes", () => {
  it("is heard as long as it keeps to the windows of all its streams", async () => {
    const client = await Client.connect(app());
    for (let stream = 0; stream < 24; stream++) {
      const window = await openWaiting(client, stream);
      for (let left = window; left > 0; left -= 65_536) client.push(stream, PIECE.subarray(0, left - 4));
    }
    await cancel(client, 0);
    client.socket.terminate();
    await untilIdle(app());
  });

  it("is heard however small its pushes are, and none of them is lost", async () => {
    const client = await Client.connect(app());
    await openWaiting(client, 1);
    const pushed = Uint8Array.from({ length: 9000 }, (_, i) => 97 + (i % 26));
    for (const byte of pushed) client.push(1, Uint8Array.of(byte));
    await cancel(client, 1);
    const context = [...client.bytesOf(1), ...pushed];
    client.say({ type: "ack", stream: 1, bytes: client.bytesOf(1).length, messages: 1 });
    client.say({ type: "generate", stream: 1, max_tokens: 8, temperature: 0 });
    expect(await client.next("finished", 1, 2)).toMatchObject({ frame: 9002, bytes: context.length + 8 });
    const body = { prompt: context, max_tokens: 8, temperature: 0, return_token_ids: true };
    expect(client.bytesOf(1).slice(context.length - 9000)).toEqual((await complete(app(), body)).choices[0]!.token_ids);
  });

  it("is held back, but not dropped, while more waits; what it asked for ends when it goes", async () => {
    const client = await Client.connect(app());
    let numPings = 0;
    client.socket.on("ping", () => numPings++);
    client.say({ type: "open", stream: 1 });
    client.say({ type: "generate", stream: 1, max_tokens: 1_000_000 });
    await expect.poll(() => client.bytesOf(1).length).toBeGreaterThan(0);
    for (let i = 0; i < 640; i++) client.push(1, PIECE); // more than fits into the sockets
    await expect.poll(() => numPings).toBeGreaterThan(5);
    expect(client.socket.bufferedAmount).toBeGreaterThan(0);
    expect(client.closed).toBeUndefined();
    client.socket.terminate();
    await untilIdle(app());
  });

  it("loses the stream where it could not be heard any more, and no other", async () => {
    const client = await Client.connect(app());
    await openWaiting(client, 1);
    for (let i = 0; i < 17; i++) client.push(1, PIECE);
    expect(await client.next("error", 1)).toMatchObject({
      error: { code: "invalid_request", param: "stream", message: expect.stringContaining("1048576 bytes") },
    });
    await client.next("closed", 1);
    client.say({ type: "open", stream: 2 });
    client.say({ type: "generate", stream: 2, max_tokens: 3 });
    await client.next("finished", 2);
  });
});

describe("a client that does not read", () => {
  it("is not read from while more than may waits for it, whatever it says", async () => {
    const { socket, connection } = await fakeConnection();
    const frames = [
      Buffer.from("not JSON"),
      Buffer.from('{"type":"cancel","stream":7}'),
      Buffer.from('{"type":"ack","stream":7,"bytes":0,"messages":0}'),
      Buffer.from('{"type":"generate","stream":7}'),
    ];
    let numSaid = 0;
    for (; !socket.isPaused && numSaid < 20_000; numSaid++) connection.receive(frames[numSaid % 4]!, false);
    expect(socket.told).toHaveLength(numSaid);
    expect(socket.bufferedAmount).toBeGreaterThan(MAX_WAITING_BYTES);
    expect(socket.bufferedAmount).toBeLessThan(MAX_WAITING_BYTES + 1000);
    while (socket.bufferedAmount > PUSH_WINDOW) {
      expect(socket.isPaused).toBe(true);
      socket.read(1);
    }
    expect(socket.isPaused).toBe(false);
    await connection.close();
  });

  it("hears everything when it does, and goes on", async () => {
    const client = await Client.connect(patient());
    client.socket.pause();
    const count = 5000;
    const long = { type: "cancel", stream: 7, ["x".repeat(8000)]: "is named by the error" };
    for (let i = 0; i < count; i++) client.say(long);
    await sleep(500);
    client.socket.resume();
    await expect.poll(() => client.messages.length, { timeout: 30_000 }).toBe(count);
    client.say({ type: "open", stream: 1 });
    client.say({ type: "generate", stream: 1, max_tokens: 3 });
    await client.next("finished", 1);
  }, 60_000);

  it("has nothing scored, forked or kept for it that it does not take", async () => {
    const { socket, engine, sessions, connection, ...fake } = await fakeConnection();
    const submit = vi.spyOn(engine, "submit");
    await fake.say({ type: "open", stream: 1, score: true });
    socket.bufferedAmount += 2 * MAX_WAITING_BYTES;
    await fake.push(1, "abc");
    expect(submit).not.toHaveBeenCalled();
    await fake.say({ type: "snapshot", stream: 1, session_id: "s" });
    await fake.say({ type: "fork", stream: 1, into: 2 });
    socket.bufferedAmount -= 2 * MAX_WAITING_BYTES;
    expect(socket.told.map(({ type }) => type)).toEqual(["opened"]);
    socket.read(1);
    await settled();
    expect(submit).toHaveBeenCalled();
    expect(await sessions.list()).toMatchObject([{ id: "s" }]);
    expect(socket.told.map(({ type }) => type)).toEqual(["opened", "ack", "saved", "opened", "forked"]);
    await connection.close();
  });

  it("leaves no more messages with the server than a stream that generates does, if it acknowledges none", async () => {
    const { socket, connection, ...fake } = await fakeConnection();
    await fake.say({ type: "open", stream: 1, window: 10 });
    for (let i = 0; i < 300; i++) await fake.say({ type: "generate", stream: 1, max_tokens: -1 });
    expect(socket.told).toHaveLength(1 + 256);
    await fake.say({ type: "ack", stream: 1, bytes: 0, messages: 200 });
    expect(socket.told).toHaveLength(1 + 300);
    await connection.close();
  });
});

describe("what waits of a connection", () => {
  it("is bounded for each stream: the socket is not read above the limit until a window is left", () => {
    const socket = {
      isPaused: false,
      pause: () => {
        socket.isPaused = true;
      },
      resume: () => {
        socket.isPaused = false;
      },
    };
    const intake = new Intake(socket as never);
    const [one, other] = [0, 1].map(() => ({ bytes: 0, needsClient: false })) as [never, never];
    expect(intake.add(one, MAX_WAITING_BYTES)).toBe(true);
    expect(intake.add(other, MAX_WAITING_BYTES)).toBe(true);
    expect(socket.isPaused).toBe(false);
    expect(intake.add(one, 1)).toBe(true);
    expect(intake.add(other, 1)).toBe(true);
    expect(socket.isPaused).toBe(true);
    intake.remove(one, MAX_WAITING_BYTES + 1);
    expect(socket.isPaused).toBe(true);
    intake.remove(other, MAX_WAITING_BYTES - PUSH_WINDOW);
    expect(socket.isPaused).toBe(true);
    intake.remove(other, 1);
    expect(socket.isPaused).toBe(false);
    intake.add(other, MAX_WAITING_BYTES);
    expect(socket.isPaused).toBe(true);
    intake.setNeedsClient(other, true); // what it waits for has to be read
    expect(socket.isPaused).toBe(false);
    expect(intake.add(other, 1)).toBe(false);
    intake.setNeedsClient(other, false);
    expect(socket.isPaused).toBe(true);
    intake.close();
    expect(socket.isPaused).toBe(false);
    intake.remove(other, 1);
    intake.add(one, 2 * MAX_WAITING_BYTES);
    expect(socket.isPaused).toBe(false);
  });
});

describe("pings", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  const setUp = () => {
    const raw = { bytesRead: 0, bytesWritten: 0, writableLength: 0 };
    const ping = (): void => {
      raw.bytesWritten += 2;
    };
    const socket = { isPaused: false, ping, terminate: vi.fn() };
    keepAlive(socket, raw, 1);
    const tick = (): void => void vi.advanceTimersByTime(1000);
    return { raw, socket, tick };
  };

  it("keep who says anything, answers or not, and drop who does not", () => {
    const { raw, socket, tick } = setUp();
    for (let i = 0; i < 5; i++) {
      tick();
      raw.bytesRead++;
    }
    expect(socket.terminate).not.toHaveBeenCalled();
    tick();
    tick();
    expect(socket.terminate).toHaveBeenCalledOnce();
  });

  it("keep who is held back as long as it takes something, and give it time to be heard afterwards", () => {
    const { raw, socket, tick } = setUp();
    socket.isPaused = true;
    for (let i = 0; i < 5; i++) tick();
    socket.isPaused = false; // just before the next ping
    tick();
    expect(socket.terminate).not.toHaveBeenCalled();
    raw.bytesRead++;
    tick();
    socket.isPaused = true;
    tick();
    raw.writableLength = 2; // its side is full: the last ping has not left
    tick();
    expect(socket.terminate).toHaveBeenCalledOnce();
  });
});
