import { MblmConnectionError, MblmProtocolError } from "../errors.js";
import { toRequestBody } from "../request-body.js";
import { Generation } from "./generation.js";
import { isCounted, type ServerMessage, toError, toProgress, toResult, toScores } from "./messages.js";
import { Queue } from "./queue.js";
import { SentFrames } from "./sent-frames.js";
import { HEADER_BYTES, toFrame } from "./socket.js";
import type { PushScores, StreamGeneration, StreamOptions } from "./stream-options.js";

const DEFAULT_WINDOW = 262_144;
const DEFAULT_PROGRESS_SECONDS = 1;
/** So many messages that have come are acknowledged at the latest: the server keeps them until then. */
const ACKNOWLEDGED_MESSAGES = 32;
/** The server takes frames of up to 1 MiB; smaller ones keep other streams of the connection moving. */
const MAX_PUSH_BYTES = 65_536;
const MAX_FRAME_BYTES = HEADER_BYTES + MAX_PUSH_BYTES;

/** What a stream needs of its connection. */
export interface Line {
  send(data: string | Uint8Array<ArrayBuffer>): void;
  fork(sessionId: string | undefined): { readonly number: number; readonly stream: Promise<ByteStream> };
  closed(number: number): void;
}

/** Something asked of the server whose answer is a message. */
interface Pending {
  readonly resolve: (message: ServerMessage) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * One context of the model: bytes are pushed into it and generated after it. What is asked is done in order. If it is a
 * session, a connection that breaks costs nothing but time: no byte is lost or comes twice.
 */
export class ByteStream {
  readonly #line: Line;
  readonly #options: StreamOptions;
  readonly #scores = new Queue<PushScores>();
  /** In the order in which they were asked for, by the number of their frame. */
  readonly #generations = new Map<number, Generation>();
  readonly #pending = new Map<number, Pending>();
  #frames = new SentFrames(0);
  #isOpen = false;
  #wasOpen = false;
  #pushWindow = Number.POSITIVE_INFINITY;
  #length = 0;
  #receivedBytes = 0;
  #receivedMessages = 0;
  #skipBytes = 0;
  #skipMessages = 0;
  #readBytes = 0;
  #acknowledgedBytes = 0;
  #acknowledgedMessages = 0;
  #error: unknown;
  #open: Pending | undefined;
  #closing: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;

  /** Made by `StreamConnection.open`. */
  constructor(
    line: Line,
    /** On its connection. */
    readonly number: number,
    options: StreamOptions,
  ) {
    this.#line = line;
    this.#options = options;
  }

  /** Its session, if it is one. */
  get sessionId(): string | undefined {
    return this.#options.sessionId;
  }

  /** Bytes of the context, as the server last said. */
  get contextBytes(): number {
    return this.#length;
  }

  /** Adds bytes to the context; resolves when more may be pushed. Text is UTF-8. */
  async push(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let start = 0; start < bytes.length; start += MAX_PUSH_BYTES) {
      this.#send(toFrame(this.number, bytes.subarray(start, start + MAX_PUSH_BYTES)));
      while (this.#isFull && this.#error === undefined) await this.#frames.acknowledged();
      this.#requireAlive();
    }
  }

  /** Generates after everything that was pushed. */
  generate(options: StreamGeneration = {}): Generation {
    const { prompt: _, ...fields } = toRequestBody({ ...options, prompt: "" });
    // With a seed, what a server that died has to generate again is the same.
    const seed = options.seed ?? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
    const generation = new Generation(
      () => this.cancel(),
      (numBytes) => this.#read(numBytes),
    );
    const frame = this.#send(JSON.stringify({ type: "generate", stream: this.number, ...fields, seed }));
    this.#generations.set(frame, generation);
    return generation;
  }

  /** Scores of what is pushed, for a stream opened with `score`. */
  async *scores(): AsyncGenerator<PushScores, void, undefined> {
    for (;;) {
      const scores = await this.#scores.next();
      if (scores === undefined) return;
      yield scores;
    }
  }

  /** Another stream with the same context; with an id, it is that new session. */
  async fork(sessionId?: string): Promise<ByteStream> {
    const { number, stream } = this.#line.fork(sessionId);
    const id = sessionId === undefined ? {} : { session_id: sessionId };
    const forked = this.#ask({ type: "fork", into: number, ...id });
    const [copy] = await Promise.all([stream, forked]);
    return copy;
  }

  /** Keeps the context as a new session; returns its id. */
  async snapshot(sessionId?: string): Promise<string> {
    const message = await this.#ask({
      type: "snapshot",
      ...(sessionId === undefined ? {} : { session_id: sessionId }),
    });
    return message.session_id!;
  }

  /** Ends the generations that were asked for so far; what was generated is part of the context. */
  cancel(): void {
    this.#say({ type: "cancel" });
    for (const generation of this.#generations.values()) generation.letEnd();
  }

  /** Resolves when all that was asked is done and the session is free for others. */
  async close(): Promise<void> {
    if (this.#error !== undefined) return;
    if (this.#closing === undefined) {
      let resolve = (): void => {};
      const promise = new Promise<void>((done) => {
        resolve = done;
      });
      this.#closing = { promise, resolve };
      this.#say({ type: "close" });
    }
    await this.#closing.promise;
  }

  /** @internal Says hello on a connection that is there; resolves when the stream is open. */
  open(): Promise<ServerMessage> {
    const { sessionId, model, create, takeOver, window = DEFAULT_WINDOW, score, topLogprobs } = this.#options;
    const { onProgress, progressSeconds = DEFAULT_PROGRESS_SECONDS } = this.#options;
    const isAgain = this.#wasOpen;
    const message = {
      type: "open",
      stream: this.number,
      window,
      ...(model === undefined ? {} : { model }),
      ...(sessionId === undefined ? {} : { session_id: sessionId, create, take_over: takeOver || isAgain }),
      ...(isAgain ? { received_bytes: this.#receivedBytes, received_messages: this.#receivedMessages } : {}),
      ...(score === undefined ? {} : { score }),
      ...(topLogprobs === undefined ? {} : { top_logprobs: topLogprobs }),
      ...(onProgress === undefined ? {} : { progress: progressSeconds }),
    };
    this.#line.send(JSON.stringify(message));
    return this.awaitOpened();
  }

  /** @internal */
  awaitOpened(): Promise<ServerMessage> {
    return new Promise((resolve, reject) => {
      this.#open = { resolve, reject };
    });
  }

  /** @internal */
  receiveBytes(bytes: Uint8Array<ArrayBuffer>): void {
    const skipped = Math.min(this.#skipBytes, bytes.length);
    this.#skipBytes -= skipped;
    this.#acknowledgeSoon();
    const fresh = bytes.subarray(skipped);
    if (fresh.length === 0) return;
    this.#receivedBytes += fresh.length;
    const [generation] = this.#generations.values();
    if (generation === undefined) throw new MblmProtocolError("bytes came that nobody asked for");
    generation.push(fresh);
  }

  /** @internal */
  receive(message: ServerMessage): void {
    if (isCounted(message)) {
      if (this.#skipMessages > 0) {
        this.#skipMessages--;
        return;
      }
      this.#receivedMessages++;
      if (this.#takenMessages - this.#acknowledgedMessages >= ACKNOWLEDGED_MESSAGES) this.#acknowledge();
    }
    if (message.bytes !== undefined) this.#length = message.bytes;
    switch (message.type) {
      case "opened":
        this.#opened(message);
        break;
      case "ack":
        this.#frames.acknowledge(message.frames ?? 0);
        break;
      case "scores":
        this.#scores.push(toScores(message));
        break;
      case "progress":
        this.#options.onProgress?.(toProgress(message));
        break;
      case "closed":
        this.#end();
        break;
      default:
        this.#answer(message);
    }
  }

  /** @internal The connection is gone; returns whether the stream can go on on another one. */
  disconnected(): boolean {
    this.#isOpen = false;
    if (this.#closing !== undefined && this.#frames.after(0)?.length === 0) this.#end();
    this.#open?.reject(new MblmConnectionError("the connection broke"));
    return this.sessionId !== undefined && this.#wasOpen;
  }

  /** @internal */
  fail(error: unknown): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#isOpen = false;
    this.#open?.reject(error);
    for (const generation of this.#generations.values()) generation.fail(error);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#scores.end(error);
    this.#frames.wakeAll();
    this.#closing?.resolve();
    this.#line.closed(this.number);
  }

  #opened(message: ServerMessage): void {
    const { frames = 0, said_bytes = 0, said_messages = 0, window } = message;
    this.#pushWindow = window ?? this.#pushWindow;
    if (!this.#wasOpen) {
      this.#frames = new SentFrames(frames);
      this.#receivedBytes = said_bytes;
      this.#readBytes = said_bytes;
      this.#receivedMessages = said_messages;
    }
    const unsent = this.#frames.after(frames);
    if (unsent === undefined) {
      this.fail(new MblmProtocolError("the server has lost what it had acknowledged; its sessions are not kept"));
      return;
    }
    this.#acknowledgedBytes = Math.min(this.#receivedBytes, said_bytes);
    this.#acknowledgedMessages = Math.min(this.#receivedMessages, said_messages);
    this.#skipBytes = Math.max(0, this.#receivedBytes - said_bytes);
    this.#skipMessages = Math.max(0, this.#receivedMessages - said_messages);
    this.#wasOpen = true;
    this.#isOpen = true;
    this.#frames.acknowledge(frames);
    for (const frame of unsent) this.#line.send(frame);
    if (this.#closing !== undefined) this.#say({ type: "close" });
    this.#open?.resolve(message);
    this.#open = undefined;
  }

  /** Takes the end of something that was asked for, or learns that the stream is broken. */
  #answer(message: ServerMessage): void {
    const { frame } = message;
    const error = message.type === "error" ? toError(message) : undefined;
    if (frame === undefined) {
      if (this.#isOpen) this.fail(error);
      else this.#open?.reject(error);
      return;
    }
    this.#frames.acknowledge(frame);
    const generation = this.#generations.get(frame);
    const pending = this.#pending.get(frame);
    this.#generations.delete(frame);
    this.#pending.delete(frame);
    if (error === undefined) {
      generation?.finish(toResult(message));
      pending?.resolve(message);
    } else if (generation || pending) {
      generation?.fail(error);
      pending?.reject(error);
    } else {
      this.fail(error); // bytes that were pushed are not part of the context
    }
    this.#acknowledge();
  }

  /** Whether another frame might not fit into the server's window. */
  get #isFull(): boolean {
    const { numBytes } = this.#frames;
    return numBytes > 0 && numBytes + MAX_FRAME_BYTES > this.#pushWindow;
  }

  #end(): void {
    this.#closing?.resolve();
    this.fail(new MblmConnectionError("the stream is closed"));
  }

  /** Returns the frame's number. It waits here while there is no connection. */
  #send(frame: string | Uint8Array<ArrayBuffer>): number {
    this.#requireAlive();
    const number = this.#frames.add(frame);
    if (this.#isOpen) this.#line.send(frame);
    return number;
  }

  #ask(message: object): Promise<ServerMessage> {
    const frame = this.#send(JSON.stringify({ ...message, stream: this.number }));
    return new Promise((resolve, reject) => {
      this.#pending.set(frame, { resolve, reject });
    });
  }

  /** Sends what is not counted: it is not sent again. */
  #say(message: object): void {
    if (this.#isOpen) this.#line.send(JSON.stringify({ ...message, stream: this.number }));
  }

  /** The reader has taken bytes: the server may send as many more. */
  #read(numBytes: number): void {
    this.#readBytes += numBytes;
    this.#acknowledgeSoon();
  }

  #acknowledgeSoon(): void {
    const { window = DEFAULT_WINDOW } = this.#options;
    if (this.#takenBytes - this.#acknowledgedBytes >= window / 2) this.#acknowledge();
  }

  /** Bytes that were read, of those that the server knows to have said. */
  get #takenBytes(): number {
    return Math.min(this.#readBytes, this.#receivedBytes - this.#skipBytes);
  }

  /** Messages that have come, of those that the server knows to have said. */
  get #takenMessages(): number {
    return this.#receivedMessages - this.#skipMessages;
  }

  #acknowledge(): void {
    this.#acknowledgedBytes = this.#takenBytes;
    this.#acknowledgedMessages = this.#takenMessages;
    this.#say({ type: "ack", bytes: this.#acknowledgedBytes, messages: this.#acknowledgedMessages });
  }

  #requireAlive(): void {
    if (this.#error !== undefined) throw this.#error;
    if (this.#closing !== undefined) throw new TypeError("the stream is closed");
  }
}
