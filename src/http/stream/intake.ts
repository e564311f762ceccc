import type { WebSocket } from "ws";

/** Bytes of one stream that a client may push before they are acknowledged: who keeps to that is always heard. */
export const PUSH_WINDOW = 1 << 18;
/** What may wait to be taken by one stream, or by the client, before the client is held back; it goes on when a window's bytes are left. */
export const MAX_WAITING_BYTES = 1 << 20;
/** What a message takes beside its text, about. */
export const MESSAGE_OVERHEAD = 512;

/** What a client has sent to one stream that the stream has not come to yet, or has been told and has not read yet. */
export interface Waiting {
  bytes: number;
  /** Whether the stream itself waits for the client, which must be heard then. */
  needsClient: boolean;
}

/** Holds a client back, by not reading from its socket, while more than may waits for one of its streams, or for itself. */
export class Intake {
  readonly #full = new Set<Waiting>();
  #isClosed = false;

  constructor(private readonly socket: Pick<WebSocket, "isPaused" | "pause" | "resume">) {}

  /** Returns whether it may wait: false where more than may waits already and holding back would be for ever. */
  add(waiting: Waiting, bytes: number): boolean {
    waiting.bytes += bytes;
    this.#balance(waiting);
    return waiting.bytes <= MAX_WAITING_BYTES || !waiting.needsClient;
  }

  remove(waiting: Waiting, bytes: number): void {
    waiting.bytes -= bytes;
    this.#balance(waiting);
  }

  setNeedsClient(waiting: Waiting, needsClient: boolean): void {
    waiting.needsClient = needsClient;
    this.#balance(waiting);
  }

  /** What still comes is of no interest, but for the client's goodbye. */
  close(): void {
    this.#isClosed = true;
    if (this.socket.isPaused) this.socket.resume();
  }

  #balance(waiting: Waiting): void {
    const { bytes, needsClient } = waiting;
    const limit = this.#full.has(waiting) ? PUSH_WINDOW : MAX_WAITING_BYTES;
    if (bytes > limit && !needsClient) this.#full.add(waiting);
    else this.#full.delete(waiting);
    const isHeldBack = this.#full.size > 0 && !this.#isClosed;
    if (isHeldBack === this.socket.isPaused) return;
    if (isHeldBack) this.socket.pause();
    else this.socket.resume();
  }
}
