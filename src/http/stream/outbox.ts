import type { SaidMessage, StreamProgress } from "../../session/stream-progress.js";

/** Without a window, at least this much of what was said latest can be said again. */
const KEPT_BYTES = 65_536;
const KEPT_MESSAGES = 64;
/** With one, as many messages may be unacknowledged. */
const MAX_MESSAGES = 256;

type Said = Pick<StreamProgress, "bytesSaid" | "messagesSaid" | "bytes" | "messages">;

/** What a stream has said, as long as the client may need it again: bytes and messages in one order. */
export class Outbox {
  #bytesSaid: number;
  #messagesSaid: number;
  /** The latest bytes. */
  readonly #chunks: Uint8Array[];
  #keptBytes: number;
  readonly #messages: SaidMessage[];

  /** @param window bytes that may be unacknowledged before the stream waits; undefined: it never waits */
  constructor(
    said: Said,
    private readonly window: number | undefined,
  ) {
    this.#bytesSaid = said.bytesSaid;
    this.#messagesSaid = said.messagesSaid;
    this.#chunks = [said.bytes];
    this.#keptBytes = said.bytes.length;
    this.#messages = [...said.messages];
  }

  get bytesSaid(): number {
    return this.#bytesSaid;
  }

  get messagesSaid(): number {
    return this.#messagesSaid;
  }

  /** Whether nothing more may be said before the client acknowledges something. */
  get isFull(): boolean {
    return this.window !== undefined && (this.#keptBytes >= this.window || this.#messages.length >= MAX_MESSAGES);
  }

  addBytes(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
    this.#keptBytes += bytes.length;
    this.#bytesSaid += bytes.length;
    if (this.window === undefined) this.#dropBytes(this.#keptBytes - KEPT_BYTES);
  }

  addMessage(text: string): void {
    this.#messages.push({ at: this.#bytesSaid, text });
    this.#messagesSaid++;
    if (this.window === undefined) this.#messages.splice(0, this.#messages.length - KEPT_MESSAGES);
  }

  /** The client has the first `bytes` bytes and `messages` messages. */
  acknowledge(bytes: number, messages: number): void {
    this.#dropBytes(bytes - (this.#bytesSaid - this.#keptBytes));
    this.#messages.splice(0, Math.max(0, messages - (this.#messagesSaid - this.#messages.length)));
  }

  /** What follows the first `bytes` bytes and `messages` messages, in order; undefined when that is not kept any more. */
  since(bytes: number, messages: number): (Uint8Array | string)[] | undefined {
    const firstByte = this.#bytesSaid - this.#keptBytes;
    const firstMessage = this.#messagesSaid - this.#messages.length;
    if (bytes < firstByte || messages < firstMessage) return undefined;
    const kept = Buffer.concat(this.#chunks);
    const parts: (Uint8Array | string)[] = [];
    let at = bytes;
    const addBytesUpTo = (end: number): void => {
      if (end > at) parts.push(kept.subarray(at - firstByte, end - firstByte));
      at = Math.max(at, end);
    };
    for (const message of this.#messages.slice(messages - firstMessage)) {
      addBytesUpTo(message.at);
      parts.push(message.text);
    }
    addBytesUpTo(this.#bytesSaid);
    return parts;
  }

  toProgress(): Said {
    return {
      bytesSaid: this.#bytesSaid,
      messagesSaid: this.#messagesSaid,
      bytes: Buffer.concat(this.#chunks),
      messages: [...this.#messages],
    };
  }

  #dropBytes(count: number): void {
    let left = Math.min(count, this.#keptBytes);
    while (left > 0) {
      const first = this.#chunks[0]!;
      if (first.length > left) this.#chunks[0] = first.subarray(left);
      else this.#chunks.shift();
      const dropped = Math.min(first.length, left);
      this.#keptBytes -= dropped;
      left -= dropped;
    }
  }
}
