import type { WebSocket } from "ws";
import { WakeUp } from "./wake-up.js";

/** Bytes on their way to a slow reader before the streams wait, and below which they go on. */
const MAX_UNSENT_BYTES = 1 << 20;
const RESUME_BYTES = 1 << 18;

/** Writes to a socket, and knows when its reader is slow. */
export class SocketWriter {
  readonly #caughtUp = new WakeUp();
  #isClosed = false;

  /** @param onClosing told when there is something to say to a client that has said goodbye, but is still there */
  constructor(
    private readonly socket: WebSocket,
    private readonly onClosing: () => void,
  ) {}

  get isSlow(): boolean {
    return !this.#isClosed && this.socket.bufferedAmount > MAX_UNSENT_BYTES;
  }

  /** @param onSent told when it waits here no longer, as long as the socket is open */
  send(data: Buffer | string, onSent?: () => void): void {
    if (this.#isClosed) return;
    if (this.socket.readyState !== this.socket.OPEN) {
      this.onClosing();
      return;
    }
    this.socket.send(data, () => {
      onSent?.();
      if (this.socket.bufferedAmount <= RESUME_BYTES) this.#caughtUp.wakeAll();
    });
  }

  /** Resolves when the reader has caught up, has gone, or `stop` is aborted. */
  async drained(stop: AbortSignal): Promise<void> {
    if (this.isSlow) await this.#caughtUp.next(stop);
  }

  close(): void {
    this.#isClosed = true;
    this.#caughtUp.wakeAll();
  }
}
