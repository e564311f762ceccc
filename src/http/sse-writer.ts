import type { FastifyReply } from "fastify";
import type { Config } from "../config/schema.js";
import { drained } from "./drained.js";

/** Server-sent events on a hijacked reply, with backpressure and comments that keep proxies from closing the stream. */
export class SseWriter {
  readonly #response;
  readonly #timer: NodeJS.Timeout;
  /** Pending while the client reads more slowly than is written; shared by all that write. */
  #drained: Promise<void> | undefined;
  readonly #idleSeconds: number;

  constructor(
    reply: FastifyReply,
    private readonly signal: AbortSignal,
    { pingSeconds, readerIdleSeconds }: Pick<Config, "pingSeconds" | "readerIdleSeconds">,
  ) {
    this.#idleSeconds = readerIdleSeconds;
    reply.hijack();
    this.#response = reply.raw;
    const headers = reply.getHeaders();
    this.#response.writeHead(200, {
      ...(headers as Record<string, string>),
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
    });
    this.#response.flushHeaders();
    this.#timer = setInterval(() => this.#offer(": ping\n\n"), pingSeconds * 1000);
  }

  /** Writes an event of a type of its own, unless the client is behind with reading: nobody ever waits for it. */
  offer(event: string, data: object): void {
    this.#offer(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Writes one event; waits when the client reads more slowly than the model writes. */
  async send(data: unknown): Promise<void> {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (this.#response.write(`data: ${text}\n\n`)) return;
    this.#drained ??= drained(this.#response, this.#idleSeconds, this.signal).finally(() => {
      this.#drained = undefined;
    });
    await this.#drained;
  }

  #offer(text: string): void {
    if (!this.#response.writableNeedDrain && !this.#response.writableEnded) this.#response.write(text);
  }

  /** Ends the stream; every stream that is not cut off ends with [DONE]. */
  end(): void {
    clearInterval(this.#timer);
    if (!this.#response.writableEnded && !this.#response.destroyed) this.#response.end("data: [DONE]\n\n");
  }
}
