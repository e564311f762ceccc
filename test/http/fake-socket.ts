import { EventEmitter } from "node:events";

interface Told {
  readonly type: string;
  readonly stream: number;
  readonly code?: string;
  readonly session_id?: string | null;
}

/** The server's end of a WebSocket: what was written to it, which leaves when the test has the client read. */
export class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readonly readyState = 1;
  isPaused = false;
  bufferedAmount = 0;
  readonly told: Told[] = [];
  readonly #unread: (() => void)[] = [];

  send(data: string, onSent: () => void): void {
    this.told.push(JSON.parse(data));
    this.bufferedAmount += data.length;
    this.#unread.push(() => {
      this.bufferedAmount -= data.length;
      onSent();
    });
  }

  /** The client reads the next `count` frames. */
  read(count: number): void {
    for (const leave of this.#unread.splice(0, count)) leave();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }
}
