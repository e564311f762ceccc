import { once } from "node:events";
import type { FastifyReply } from "fastify";

/** Server-sent events on a hijacked reply, with backpressure and comments that keep proxies from closing the stream. */
export class SseWriter {
  readonly #response;
  readonly #timer: NodeJS.Timeout;

  constructor(
    reply: FastifyReply,
    private readonly signal: AbortSignal,
    pingSeconds: number,
  ) {
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
    this.#timer = setInterval(() => this.#response.write(": ping\n\n"), pingSeconds * 1000);
  }

  /** Writes one event; waits when the client reads more slowly than the model writes. */
  async send(data: unknown): Promise<void> {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (!this.#response.write(`data: ${text}\n\n`)) await once(this.#response, "drain", { signal: this.signal });
  }

  /** Ends the stream; every stream that is not cut off ends with [DONE]. */
  end(): void {
    clearInterval(this.#timer);
    if (!this.#response.writableEnded && !this.#response.destroyed) this.#response.end("data: [DONE]\n\n");
  }
}
