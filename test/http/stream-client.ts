import { afterEach, expect } from "vitest";
import { WebSocket } from "ws";
import type { TestApp } from "./test-app.js";

export interface Message {
  type: string;
  stream: number | null;
  finish_reason?: string;
  stop_reason?: unknown;
  bytes?: number;
  session_id?: string | null;
  frame?: number;
  frames?: number;
  said_bytes?: number;
  offset?: number;
  logprobs?: number[];
  top_logprobs?: { id: number; logprob: number }[][];
  received_bytes?: number;
  prefilled_bytes?: number;
  bytes_per_second?: number;
  usage?: { prompt_tokens: number; completion_tokens: number };
  error?: { code: string; param: string | null; message: string };
}

const clients: Client[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.socket.terminate();
});

/** An independent client: what it got, by stream, in order. */
export class Client {
  readonly messages: Message[] = [];
  readonly received = new Map<number, number[]>();
  readonly socket: WebSocket;
  closed: { code: number; reason: string } | undefined;

  private constructor(url: string, options: object) {
    this.socket = new WebSocket(url.replace("http", "ws"), "mblm.stream.v1", options);
    this.socket.on("message", (data: Buffer, isBinary: boolean) => {
      if (!isBinary) {
        this.messages.push(JSON.parse(data.toString()));
        return;
      }
      const stream = data.readUInt32LE();
      this.received.set(stream, [...(this.received.get(stream) ?? []), ...data.subarray(4)]);
    });
    this.socket.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString() };
    });
    this.socket.on("error", () => {});
  }

  static async connect(target: TestApp, options: object = {}): Promise<Client> {
    const client = new Client(`${target.url}/v1/stream`, options);
    clients.push(client);
    await new Promise((resolve, reject) => client.socket.once("open", resolve).once("error", reject));
    return client;
  }

  say(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  push(stream: number, bytes: Uint8Array | string): void {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(stream);
    this.socket.send(Buffer.concat([header, Buffer.from(bytes as string)]));
  }

  /** The `count`-th message of a kind. */
  async next(type: string, stream: number | null, count = 1): Promise<Message> {
    const found = (): Message | undefined =>
      this.messages.filter((message) => message.type === type && message.stream === stream)[count - 1];
    await expect.poll(found, { interval: 5 }).toBeDefined();
    return found()!;
  }

  bytesOf(stream: number): number[] {
    return this.received.get(stream) ?? [];
  }
}
