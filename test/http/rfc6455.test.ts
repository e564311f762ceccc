import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { complete } from "./api.js";
import { untilIdle, useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const clients: RawClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.socket.destroy();
});

const TEXT = 1;
const BINARY = 2;
const CONTINUATION = 0;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

interface Frame {
  readonly opcode: number;
  readonly isFinal: boolean;
  readonly payload: Buffer;
}

interface FrameOptions {
  readonly isFinal?: boolean;
  readonly isMasked?: boolean;
  readonly reserved?: number;
  /** Length in the header; the payload's when left out. */
  readonly length?: number;
}

/** A frame as RFC 6455, section 5.2 has it, or with what it forbids. */
function encode(opcode: number, payload: Buffer | string, options: FrameOptions = {}): Buffer {
  const { isFinal = true, isMasked = true, reserved = 0, length } = options;
  const data = Buffer.from(payload as string);
  const size = length ?? data.length;
  const head = [(isFinal ? 0x80 : 0) | (reserved << 4) | opcode];
  const mask = isMasked ? 0x80 : 0;
  if (size < 126) head.push(mask | size);
  else if (size < 65_536) head.push(mask | 126, size >> 8, size & 255);
  else head.push(mask | 127, 0, 0, 0, 0, (size >>> 24) & 255, (size >> 16) & 255, (size >> 8) & 255, size & 255);
  if (!isMasked) return Buffer.concat([Buffer.from(head), data]);
  const key = randomBytes(4);
  return Buffer.concat([Buffer.from(head), key, data.map((byte, i) => byte ^ key[i % 4]!)]);
}

/** A client that says whatever it is told to, frame by frame or byte by byte. */
class RawClient {
  readonly frames: Frame[] = [];
  isClosed = false;
  #buffer = Buffer.alloc(0);
  head = "";

  private constructor(readonly socket: Socket) {
    socket.on("data", (data) => this.#take(data));
    socket.on("close", () => {
      this.isClosed = true;
    });
    socket.on("error", () => {});
  }

  static async handshake(headers: Readonly<Record<string, string | undefined>> = {}): Promise<RawClient> {
    const { port, host } = new URL(app().url);
    const client = new RawClient(connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true }));
    clients.push(client);
    const all: Record<string, string | undefined> = {
      host,
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      "sec-websocket-protocol": "chat, mblm.stream.v1",
      "sec-websocket-extensions": "permessage-deflate",
      ...headers,
    };
    const lines = Object.entries(all).filter(([, value]) => value !== undefined);
    client.socket.write(`GET /v1/stream HTTP/1.1\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n`);
    await expect.poll(() => client.head, { interval: 2 }).not.toBe("");
    return client;
  }

  send(...frames: Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  /** The first frame of a kind. */
  async next(opcode: number): Promise<Frame> {
    const find = (): Frame | undefined => this.frames.find((frame) => frame.opcode === opcode);
    await expect.poll(find, { interval: 3 }).toBeDefined();
    return find()!;
  }

  async closeCode(): Promise<number> {
    return (await this.next(CLOSE)).payload.readUInt16BE();
  }

  async message(type: string): Promise<Record<string, unknown>> {
    const find = (): Record<string, unknown> | undefined =>
      this.frames
        .filter(({ opcode }) => opcode === TEXT)
        .map(({ payload }) => JSON.parse(payload.toString()) as Record<string, unknown>)
        .find((message) => message.type === type);
    await expect.poll(find, { interval: 3, timeout: 110_000 }).toBeDefined();
    return find()!;
  }

  get bytes(): number[] {
    return this.frames.flatMap(({ opcode, payload }) => (opcode === BINARY ? [...payload.subarray(4)] : []));
  }

  #take(data: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    if (this.head === "") {
      const end = this.#buffer.indexOf("\r\n\r\n");
      if (end < 0) return;
      this.head = this.#buffer.toString("latin1", 0, end);
      this.#buffer = this.#buffer.subarray(end + 4);
      if (!this.head.startsWith("HTTP/1.1 101")) return;
    }
    while (this.#buffer.length >= 2) {
      const short = this.#buffer[1]! & 127;
      const start = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (this.#buffer.length < start) return;
      const length =
        short < 126 ? short : short === 126 ? this.#buffer.readUInt16BE(2) : Number(this.#buffer.readBigUInt64BE(2));
      if (this.#buffer.length < start + length) return;
      expect(this.#buffer[1]! & 0x80, "a server's frames are not masked").toBe(0);
      const payload = Buffer.from(this.#buffer.subarray(start, start + length));
      const frame = { opcode: this.#buffer[0]! & 15, isFinal: this.#buffer[0]! >= 128, payload };
      this.frames.push(frame);
      // Who does not answer is dropped, on a busy machine in the middle of a test.
      if (frame.opcode === PING && this.socket.writable) this.send(encode(PONG, payload));
      this.#buffer = this.#buffer.subarray(start + length);
    }
  }
}

const OPEN = encode(TEXT, '{"type":"open","stream":1}');
const generate = (count: number): Buffer =>
  encode(TEXT, `{"type":"generate","stream":1,"max_tokens":${count},"temperature":0}`);
const push = (text: string): Buffer => Buffer.concat([Buffer.of(1, 0, 0, 0), Buffer.from(text)]);
const greedy = async (prompt: string, count: number): Promise<number[]> =>
  (await complete(app(), { prompt, max_tokens: count, temperature: 0, return_token_ids: true })).choices[0]!.token_ids!;

describe("the handshake", () => {
  it("accepts the key, chooses the subprotocol, and compresses nothing", async () => {
    const { head } = await RawClient.handshake();
    expect(head).toMatch(/^HTTP\/1\.1 101 /);
    expect(head).toContain("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); // RFC 6455, section 1.3
    expect(head).toContain("Sec-WebSocket-Protocol: mblm.stream.v1");
    expect(head.toLowerCase()).not.toContain("sec-websocket-extensions");
  });

  it.each([
    ["no key", { "sec-websocket-key": undefined }, 400],
    ["a short key", { "sec-websocket-key": "abc" }, 400],
    ["an old version", { "sec-websocket-version": "7" }, 400],
    ["no version", { "sec-websocket-version": undefined }, 400],
    ["a wrong list of subprotocols", { "sec-websocket-protocol": "a,,b" }, 400],
    ["no upgrade", { upgrade: undefined, connection: undefined }, 404],
  ])("refuses %s", async (_, headers, status) => {
    expect((await RawClient.handshake(headers)).head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });
});

describe("frames", () => {
  it("may be cut anywhere, with control frames between the parts", async () => {
    const client = await RawClient.handshake();
    const message = '{"type":"open","stream":1}';
    client.send(
      encode(TEXT, message.slice(0, 3), { isFinal: false }),
      encode(PING, "are you there"),
      encode(CONTINUATION, message.slice(3, 3), { isFinal: false }),
      encode(CONTINUATION, message.slice(3)),
    );
    expect((await client.next(PONG)).payload.toString()).toBe("are you there");
    await client.message("opened");
    const bytes = push("fragments of a prompt");
    for (const [i, byte] of bytes.entries()) {
      const frame = encode(i === 0 ? BINARY : CONTINUATION, Buffer.of(byte), { isFinal: i === bytes.length - 1 });
      // And every byte of the frame in a packet of its own.
      for (const part of frame) client.socket.write(Buffer.of(part));
    }
    client.send(generate(7));
    await client.message("finished");
    expect(client.bytes).toEqual(await greedy("fragments of a prompt", 7));
  });

  it.each<[string, number, Buffer[]]>([
    ["without a mask", 1002, [encode(TEXT, "{}", { isMasked: false })]],
    ["with reserved bits", 1002, [encode(TEXT, "{}", { reserved: 1 })]],
    ["compressed, which was not agreed on", 1002, [encode(TEXT, "{}", { reserved: 4 })]],
    ["of an unknown kind", 1002, [encode(3, "x")]],
    ["of an unknown control kind", 1002, [encode(11, "x")]],
    ["that continue nothing", 1002, [encode(CONTINUATION, "x")]],
    ["that begin within another", 1002, [encode(TEXT, "{", { isFinal: false }), encode(TEXT, "}")]],
    ["of control in parts", 1002, [encode(PING, "x", { isFinal: false })]],
    ["of control that are too long", 1002, [encode(PING, "x".repeat(126))]],
    ["of text that is no UTF-8", 1007, [encode(TEXT, Buffer.from([0x22, 0xc3, 0x28, 0x22]))]],
    ["of text cut in a character", 1007, [encode(TEXT, Buffer.from([0xe2, 0x82]))]],
    ["that are too large, before they are sent", 1009, [encode(BINARY, "", { length: (1 << 20) + 1 })]],
    [
      "that are too large in parts",
      1009,
      [encode(BINARY, Buffer.alloc(1 << 19), { isFinal: false }), encode(CONTINUATION, Buffer.alloc((1 << 19) + 1))],
    ],
    ["that close with a code nobody may send", 1002, [encode(CLOSE, Buffer.of(3, 237))]],
    ["that close with half a code", 1002, [encode(CLOSE, Buffer.of(3))]],
    ["that close with a reason that is no UTF-8", 1007, [encode(CLOSE, Buffer.of(3, 232, 0xff))]],
  ])("are refused %s: %i", async (_, code, frames) => {
    const client = await RawClient.handshake();
    client.send(OPEN, ...frames);
    expect(await client.closeCode()).toBe(code);
    client.socket.end();
    await expect.poll(() => client.isClosed).toBe(true);
  });

  it("of the largest size are taken", async () => {
    const client = await RawClient.handshake();
    const bytes = Buffer.alloc(1 << 20, "x");
    bytes.writeUInt32LE(1);
    client.send(OPEN, encode(BINARY, bytes), encode(TEXT, '{"type":"close","stream":1}'));
    expect(await client.message("ack")).toMatchObject({ frames: 1, bytes: (1 << 20) - 4 });
    await client.message("closed");
  }, 120_000);
});

describe("the end", () => {
  it("is answered with its own code", async () => {
    const client = await RawClient.handshake();
    client.send(encode(CLOSE, Buffer.concat([Buffer.of(0x0f, 0xa0), Buffer.from("done")])));
    expect(await client.closeCode()).toBe(4000);
    client.socket.end();
    await expect.poll(() => client.isClosed).toBe(true);
  });

  it.each<[string, (client: RawClient) => void]>([
    ["is half closed", ({ socket }) => socket.end()],
    ["is half closed in the middle of a frame", ({ socket }) => socket.end(encode(TEXT, "", { length: 100 }))],
    ["breaks", ({ socket }) => socket.resetAndDestroy()],
    ["is closed in good order", (client) => client.send(encode(CLOSE, Buffer.of(3, 232)))],
  ])("frees everything when a socket %s", async (_, end) => {
    const client = await RawClient.handshake();
    client.send(OPEN, encode(BINARY, push("x")), generate(1_000_000));
    await expect.poll(() => client.bytes.length).toBeGreaterThan(10);
    end(client);
    await untilIdle(app());
    client.socket.end();
    await expect.poll(() => client.isClosed).toBe(true);
  });
});
