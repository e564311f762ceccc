import { MblmApiError, MblmConnectionError } from "../errors.js";
import { retryDelayMs } from "../retry.js";
import { ByteStream, type Line } from "./byte-stream.js";
import { toMessage } from "./messages.js";
import { fromFrame, KEY_SUBPROTOCOL, type SocketClass, type SocketLike, SUBPROTOCOL } from "./socket.js";
import type { ConnectOptions, StreamOptions } from "./stream-options.js";

const DEFAULT_MAX_RETRIES = 8;
const NORMAL = 1000;

/** Byte streams over one WebSocket, which is made anew when it breaks. */
export class StreamConnection {
  readonly #url: string;
  readonly #protocols: string[];
  readonly #class: SocketClass;
  readonly #maxRetries: number;
  readonly #streams = new Map<number, ByteStream>();
  #socket: Promise<SocketLike> | undefined;
  #current: SocketLike | undefined;
  #nextNumber = 0;
  #isClosed = false;

  /** Made by `MblmClient.connect`. */
  constructor(
    url: string,
    apiKey: string | undefined,
    { webSocket, maxRetries = DEFAULT_MAX_RETRIES }: ConnectOptions,
  ) {
    const found = webSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
    if (found === undefined)
      throw new TypeError("webSocket: there is no global WebSocket; pass one, such as that of ws");
    if (!(Number.isInteger(maxRetries) && maxRetries >= 0)) {
      throw new TypeError(`maxRetries: must be an integer ≥ 0, not ${maxRetries}`);
    }
    this.#url = url;
    this.#protocols = apiKey === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, KEY_SUBPROTOCOL + apiKey];
    this.#class = found;
    this.#maxRetries = maxRetries;
  }

  /** Opens a stream. Rejects with MblmApiError when the server refuses, with MblmConnectionError when it is not there. */
  async open(options: StreamOptions = {}): Promise<ByteStream> {
    await this.#connected();
    const stream = this.#add(options);
    try {
      await stream.open();
    } catch (error) {
      this.#streams.delete(stream.number);
      throw error;
    }
    return stream;
  }

  /** Ends everything on it at once; streams that should end well are closed before. */
  close(): void {
    this.#isClosed = true;
    for (const stream of [...this.#streams.values()]) stream.fail(new MblmConnectionError("the connection was closed"));
    this.#current?.close(NORMAL);
    this.#current = undefined;
  }

  #add(options: StreamOptions): ByteStream {
    const number = this.#nextNumber++;
    const line: Line = {
      send: (data) => this.#current?.send(data),
      fork: (sessionId) => {
        const { window, score, topLogprobs } = options;
        const copy = this.#add({ sessionId, window, score, topLogprobs });
        return { number: copy.number, stream: copy.awaitOpened().then(() => copy) };
      },
      closed: () => this.#streams.delete(number),
    };
    const stream = new ByteStream(line, number, options);
    this.#streams.set(number, stream);
    return stream;
  }

  #connected(): Promise<SocketLike> {
    if (this.#isClosed) return Promise.reject(new MblmConnectionError("the connection was closed"));
    this.#socket ??= this.#connect().catch((error: unknown) => {
      this.#socket = undefined;
      throw error;
    });
    return this.#socket;
  }

  async #connect(): Promise<SocketLike> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#try();
      } catch (error) {
        if (attempt >= this.#maxRetries || this.#isClosed) throw error;
        await sleep(retryDelayMs(attempt, undefined, Math.random()) ?? 0);
      }
    }
  }

  #try(): Promise<SocketLike> {
    return new Promise((resolve, reject) => {
      const socket = new this.#class(this.#url, this.#protocols);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        this.#current = socket;
        resolve(socket);
      };
      socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => this.#receive(data);
      socket.onerror = () => {}; // `onclose` follows
      socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
        reject(new MblmConnectionError(`no connection to ${this.#url}: ${reason || `close code ${code}`}`));
        if (this.#current === socket) this.#lost();
      };
    });
  }

  #receive(data: string | ArrayBuffer): void {
    if (typeof data === "string") {
      const message = toMessage(data);
      if (message.stream !== null) this.#streams.get(message.stream)?.receive(message);
      return;
    }
    const { stream, bytes } = fromFrame(data);
    this.#streams.get(stream)?.receiveBytes(bytes);
  }

  /** Streams that are sessions go on on another connection. */
  #lost(): void {
    this.#current = undefined;
    this.#socket = undefined;
    const going: ByteStream[] = [];
    for (const stream of [...this.#streams.values()]) {
      if (stream.disconnected() && !this.#isClosed) going.push(stream);
      else stream.fail(new MblmConnectionError("the connection broke"));
    }
    if (going.length === 0) return;
    this.#connected().then(
      () => {
        for (const stream of going) void this.#reopen(stream);
      },
      (error: unknown) => {
        for (const stream of going) stream.fail(error);
      },
    );
  }

  async #reopen(stream: ByteStream): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await stream.open();
        return;
      } catch (error) {
        if (error instanceof MblmConnectionError) return; // broke again: `#lost` has seen it
        // Its old connection may not have been missed yet, or the server not be ready.
        const isPassing = error instanceof MblmApiError && PASSING.includes(error.code ?? "");
        if (!isPassing || attempt >= this.#maxRetries) {
          stream.fail(error);
          return;
        }
        await sleep(retryDelayMs(attempt, undefined, Math.random()) ?? 0);
      }
    }
  }
}

/** Refusals that a later try may not get. */
const PASSING = ["session_conflict", "overloaded", "store_unavailable", "shutting_down"];

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
