import type { StreamOutput } from "./stream-output.js";

/**
 * Puts what a stream says on the wire, in order, and never more bytes than may be unacknowledged; the rest waits here: what
 * the engine made before it stopped, what is said again after a break, and messages that follow such bytes.
 */
export class SendWindow {
  /** In order; empty, or beginning with bytes. */
  readonly #waiting: (Uint8Array | string)[] = [];
  /** Of all bytes that the stream ever says. */
  #sent = 0;
  #acknowledged = 0;

  /**
   * @param size bytes that may be unacknowledged; undefined: any number
   * @param bytesSaid what was said before, and has arrived
   */
  constructor(
    private readonly output: Pick<StreamOutput, "bytes" | "message">,
    private readonly size: number = Number.POSITIVE_INFINITY,
    bytesSaid = 0,
  ) {
    this.rewind(bytesSaid);
  }

  /** Bytes of the stream that were ever put on the wire. */
  get bytesSent(): number {
    return this.#sent;
  }

  /** Only the first `bytes` bytes have arrived: what followed will be said again, before anything else is. */
  rewind(bytes: number): void {
    this.#sent = bytes;
    this.#acknowledged = bytes;
  }

  bytes(payload: Uint8Array): void {
    const rest = this.#waiting.length > 0 ? payload : this.#send(payload);
    if (rest.length > 0) this.#waiting.push(rest);
  }

  /** @param text JSON */
  message(text: string): void {
    if (this.#waiting.length > 0) this.#waiting.push(text);
    else this.output.message(text);
  }

  /** The first `bytes` bytes of the stream have arrived: as many more may go. */
  acknowledge(bytes: number): void {
    this.#acknowledged = Math.max(this.#acknowledged, bytes);
    while (this.#waiting.length > 0) {
      const [part] = this.#waiting;
      const rest = typeof part === "string" ? this.output.message(part) : this.#send(part!);
      if (rest !== undefined && rest.length > 0) {
        this.#waiting[0] = rest;
        return;
      }
      this.#waiting.shift();
    }
  }

  /** Whether all of it is on the wire. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Returns what does not fit. */
  #send(payload: Uint8Array): Uint8Array {
    const room = this.#acknowledged + this.size - this.#sent;
    if (room <= 0) return payload;
    const part = payload.length <= room ? payload : payload.subarray(0, room);
    this.#sent += part.length;
    this.output.bytes(part);
    return payload.subarray(part.length);
  }
}
