import type { WebSocket } from "ws";
import type { SequenceState } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import type { AppContext } from "../app-context.js";
import { errorBody } from "../error-response.js";
import { ByteStream } from "./byte-stream.js";
import { decodeFrame, encodeFrame } from "./frames.js";
import { type ClientMessage, parseMessage } from "./messages.js";

const MAX_STREAMS = 64;
/** Bytes on their way to a slow reader before generation waits. */
const MAX_UNSENT_BYTES = 1 << 20;
/** Received bytes that wait to be taken before the client is held back, and below which it may go on. */
const MAX_UNTAKEN_BYTES = 4 << 20;
const RESUME_BYTES = 1 << 20;

interface Open {
  /** Undefined while its session is being fetched. */
  stream: ByteStream | undefined;
  /** Operations of a stream are done one after the other; never rejects. */
  queue: Promise<void>;
}

/** One WebSocket: any number of streams, each with its own context and its own order of things. */
export class StreamConnection {
  readonly #streams = new Map<number, Open>();
  #untakenBytes = 0;
  #isClosed = false;

  constructor(
    private readonly socket: WebSocket,
    private readonly context: AppContext,
    /** Names the connection. */
    private readonly id: string,
  ) {}

  receive(data: Buffer, isBinary: boolean): void {
    if (isBinary) this.#receiveBytes(data);
    else this.#receiveText(data.toString());
  }

  /** The socket is gone: everything ends. */
  close(): void {
    this.#isClosed = true;
    for (const open of this.#streams.values()) {
      open.stream?.abandon();
      void open.queue.then(() => open.stream?.close());
    }
    this.#streams.clear();
  }

  #receiveBytes(data: Buffer): void {
    const frame = decodeFrame(data);
    if (frame === undefined) {
      this.#sayError(
        null,
        new MblmError("invalid_request", "A binary frame begins with four bytes: the stream's number."),
      );
      return;
    }
    const { stream: number, payload } = frame;
    this.#untakenBytes += payload.length;
    if (this.#untakenBytes > MAX_UNTAKEN_BYTES) this.socket.pause();
    void this.#enqueue(number, (stream) => stream.push(Uint8Array.from(payload))).then(() => {
      this.#untakenBytes -= payload.length;
      if (this.#untakenBytes <= RESUME_BYTES && !this.#isClosed) this.socket.resume();
    });
  }

  #receiveText(text: string): void {
    let message: ClientMessage;
    try {
      message = parseMessage(text);
    } catch (thrown) {
      this.#sayError(streamOf(text), MblmError.from(thrown));
      return;
    }
    const number = message.stream;
    switch (message.type) {
      case "open":
        this.#open(number, message.session_id);
        break;
      case "generate": {
        const generate = message;
        void this.#enqueue(number, (stream) => stream.generate(generate));
        break;
      }
      case "cancel":
        if (this.#streams.has(number)) this.#streams.get(number)!.stream?.cancel();
        else this.#sayError(number, notOpen(number));
        break;
      case "fork": {
        const { into } = message;
        void this.#enqueue(number, async (stream) => {
          const state = await stream.settle();
          this.#open(into, undefined, state);
        });
        break;
      }
      case "close":
        void this.#enqueue(number, async (stream) => {
          stream.close();
          this.#streams.delete(number);
          await this.#say({ type: "closed", stream: number });
        });
        break;
    }
  }

  /** Does something with an open stream after what was asked before. */
  #enqueue(number: number, work: (stream: ByteStream) => Promise<void>): Promise<void> {
    const open = this.#streams.get(number);
    if (open === undefined) {
      this.#sayError(number, notOpen(number));
      return Promise.resolve();
    }
    const run = async (): Promise<void> => {
      if (this.#isClosed) return;
      if (open.stream === undefined) throw notOpen(number);
      await work(open.stream);
    };
    open.queue = open.queue.then(run).catch((thrown) => this.#sayError(number, MblmError.from(thrown)));
    return open.queue;
  }

  /** The number is taken at once, so that what follows in the same breath finds the stream. */
  #open(number: number, sessionId: string | undefined, state?: SequenceState): void {
    const problem = this.#whyNot(number);
    if (problem !== undefined) {
      this.#sayError(number, problem);
      return;
    }
    const open: Open = { stream: undefined, queue: Promise.resolve() };
    this.#streams.set(number, open);
    open.queue = this.#start(open, number, sessionId, state).catch((thrown) => {
      this.#streams.delete(number);
      this.#sayError(number, MblmError.from(thrown));
    });
  }

  async #start(
    open: Open,
    number: number,
    sessionId: string | undefined,
    state: SequenceState | undefined,
  ): Promise<void> {
    const session = sessionId === undefined ? undefined : await this.context.sessions.acquire(sessionId);
    const output = {
      bytes: (payload: Uint8Array) =>
        payload.length === 0 ? Promise.resolve() : this.#send(encodeFrame(number, payload)),
      message: (message: object) => this.#say(message),
    };
    const stream = new ByteStream(this.context, output, this.#name(number), session?.session.state ?? state, session);
    open.stream = stream;
    await this.#say({ type: "opened", stream: number, session_id: sessionId ?? null, bytes: stream.length });
  }

  #whyNot(number: number): MblmError | undefined {
    if (this.#streams.has(number)) {
      return new MblmError("invalid_request", `stream: ${number} is open already`, { field: "stream" });
    }
    if (this.#streams.size < MAX_STREAMS) return undefined;
    return new MblmError("overloaded", `A connection has at most ${MAX_STREAMS} streams.`);
  }

  #name(number: number): string {
    return `${this.id}-${number}`;
  }

  #sayError(stream: number | null, error: MblmError): void {
    if (this.#isClosed) return;
    const body = errorBody(error.code, error.message, error.field ?? null);
    void this.#say({ type: "error", stream, ...body }).catch(() => {});
  }

  #say(message: object): Promise<void> {
    return this.#send(JSON.stringify(message));
  }

  /** Resolves at once, or, while the client reads more slowly than is written, when this is on its way. */
  #send(data: Buffer | string): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const isSlow = this.socket.bufferedAmount > MAX_UNSENT_BYTES;
      this.socket.send(data, (error) => (error ? reject(error) : resolve()));
      if (!isSlow) resolve();
    });
  }
}

function notOpen(number: number): MblmError {
  return new MblmError("invalid_request", `stream: ${number} is not open`, { field: "stream" });
}

/** The stream that a message of the wrong form names, if it does. */
function streamOf(text: string): number | null {
  try {
    const { stream } = JSON.parse(text) as { stream?: unknown };
    return typeof stream === "number" ? stream : null;
  } catch {
    return null;
  }
}
