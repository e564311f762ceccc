import type { WebSocket } from "ws";
import type { SequenceState } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import { type AcquiredSession, acquireOrCreate, type SessionStore } from "../../session/session-store.js";
import { openContext, type Requester, sessionsOf } from "../access/caller-context.js";
import type { AppContext, ServerContext } from "../app-context.js";
import { countStreamRefusal } from "../count-refusals.js";
import { errorBody } from "../error-response.js";
import { requireFit } from "../sessions/session-sequence.js";
import { ByteStream, type ByteStreamOptions } from "./byte-stream.js";
import { decodeFrame, encodeFrame } from "./frames.js";
import { Intake, MAX_WAITING_BYTES, MESSAGE_OVERHEAD, PUSH_WINDOW, type Waiting } from "./intake.js";
import { type ClientMessage, MESSAGES, type OpenMessage, parseMessage } from "./messages.js";
import { PushBatch } from "./push-batch.js";
import { PushProgress } from "./push-progress.js";
import { SocketWriter } from "./socket-writer.js";
import type { StreamOutput } from "./stream-output.js";

const MAX_STREAMS = 64;

interface Open {
  /** What was sent to it and waits for its turn. */
  readonly waiting: Waiting;
  /** Where reports on what is pushed were asked for; bytes count when they come, before their turn. */
  readonly progress: PushProgress | undefined;
  /** Undefined while its session is being fetched, and when it could not be opened. */
  stream: ByteStream | undefined;
  /** Whether the client has had it closed: what it says after that finds no stream. */
  isClosed: boolean;
  /** Operations of a stream are done one after the other; never rejects. */
  queue: Promise<void>;
  numWaiting: number;
  /** The latest push, while it waits and nothing else was asked after it: what is pushed next is added to it. */
  push: PushBatch | undefined;
  /** Of the generations that were asked for and have not ended. */
  readonly cancels: Set<AbortController>;
}

/** One WebSocket: any number of streams, each with its own context and its own order of things. */
export class StreamConnection {
  readonly #streams = new Map<number, Open>();
  readonly #writer: SocketWriter;
  readonly #sessions: SessionStore;
  readonly #intake: Intake;
  /** Messages on their way: who does not read them is not heard. */
  readonly #unread: Waiting = { bytes: 0, needsClient: false };
  #isClosed = false;

  constructor(
    socket: WebSocket,
    private readonly server: ServerContext,
    private readonly requester: Requester,
    /** Names the connection. */
    private readonly id: string,
  ) {
    this.#sessions = sessionsOf(requester.caller, server);
    this.#writer = new SocketWriter(socket, () => void this.close());
    this.#intake = new Intake(socket);
  }

  receive(data: Buffer, isBinary: boolean): void {
    if (this.#isClosed) return;
    if (isBinary) this.#receiveBytes(data);
    else this.#receiveText(data.toString());
  }

  /** Everything ends where it is; resolves when sessions are kept and free again. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#writer.close();
    this.#intake.close();
    await Promise.all([...this.#streams.keys()].map((number) => this.#drop(number)));
  }

  #receiveBytes(data: Buffer): void {
    const frame = decodeFrame(data);
    if (frame === undefined) {
      const problem = "A binary frame begins with four bytes: the stream's number.";
      this.#sayError(null, new MblmError("invalid_request", problem));
      return;
    }
    const { stream: number, payload } = frame;
    const open = this.#streams.get(number);
    open?.progress?.receive(payload.length);
    if (open?.push?.add(payload)) {
      this.#hold(number, open, payload.length);
      return;
    }
    const batch = new PushBatch(payload);
    const begin = (): number => {
      if (open!.push === batch) open!.push = undefined;
      return batch.length;
    };
    const push = (stream: ByteStream): Promise<void> => stream.push(batch.bytes, batch.numFrames);
    if (this.#enqueue(number, batch.length, push, { numFrames: 0, begin })) open!.push = batch;
  }

  #receiveText(text: string): void {
    let message: ClientMessage;
    try {
      message = parseMessage(text);
    } catch (thrown) {
      this.#refuse(text, MblmError.from(thrown));
      return;
    }
    const number = message.stream;
    switch (message.type) {
      case "open":
        this.#open(message);
        break;
      case "generate": {
        const generate = message;
        const cancel = new AbortController();
        const { cancels } = this.#streams.get(number) ?? {};
        cancels?.add(cancel);
        this.#enqueue(number, text.length + MESSAGE_OVERHEAD, (stream) =>
          this.#take()
            .then(() => stream.generate(generate, cancel.signal))
            .finally(() => cancels?.delete(cancel)),
        );
        break;
      }
      case "cancel":
        this.#withOpen(number, ({ cancels }) => {
          for (const cancel of cancels) cancel.abort();
        });
        break;
      case "ack": {
        const { bytes, messages } = message;
        this.#withOpen(number, ({ stream }) => {
          if (stream === undefined) throw notOpen(number);
          stream.acknowledge(bytes, messages);
        });
        break;
      }
      case "fork": {
        const { into, session_id: sessionId } = message;
        this.#enqueue(number, text.length + MESSAGE_OVERHEAD, (stream) => this.#fork(stream, into, sessionId));
        break;
      }
      case "snapshot": {
        const sessionId = message.session_id ?? undefined;
        this.#enqueue(number, text.length + MESSAGE_OVERHEAD, async (stream) => {
          await stream.untilHeard();
          await stream.snapshot(sessionId);
        });
        break;
      }
      case "close": {
        const open = this.#streams.get(number);
        this.#enqueue(number, text.length + MESSAGE_OVERHEAD, async (stream) => {
          await stream.settle();
          await stream.flushed();
          if (stream.isAbandoned) return;
          open!.isClosed = true;
          this.#streams.delete(number);
          await stream.close();
          this.#say({ type: "closed", stream: number });
        });
        break;
      }
    }
  }

  /** A message of the wrong form still counts as a frame of its stream, when it names one and is no message about it. */
  #refuse(text: string, error: MblmError): void {
    const { stream: number, type } = peek(text);
    const isCounted = type === "generate" || type === "fork" || type === "snapshot";
    if (!isCounted || number === null || !this.#streams.has(number)) {
      this.#sayError(number, error);
      return;
    }
    this.#enqueue(number, text.length + MESSAGE_OVERHEAD, () => Promise.reject(error));
  }

  /** A generation counts as a request of its key. */
  async #take(): Promise<void> {
    this.requester.caller?.limiter.takeRequest();
  }

  #withOpen(number: number, work: (open: Open) => void): void {
    try {
      const open = this.#streams.get(number);
      if (open === undefined) throw notOpen(number);
      work(open);
    } catch (thrown) {
      this.#sayError(number, MblmError.from(thrown));
    }
  }

  /**
   * Does something with an open stream after what was asked before.
   *
   * @param size bytes that wait for it
   * @param numFrames frames that count as carried out if it fails
   * @param begin called when its turn has come; returns the bytes that have waited
   * @returns whether it will be done
   */
  #enqueue(
    number: number,
    size: number,
    work: (stream: ByteStream) => Promise<void>,
    { numFrames = 1, begin = () => size }: { numFrames?: 0 | 1; begin?: () => number } = {},
  ): boolean {
    const open = this.#streams.get(number);
    if (open === undefined) {
      this.#sayError(number, notOpen(number));
      return false;
    }
    if (!this.#hold(number, open, size)) return false;
    open.push = undefined;
    open.numWaiting++;
    const run = async (): Promise<void> => {
      open.numWaiting--;
      this.#intake.remove(open.waiting, begin());
      const { stream } = open;
      if (stream === undefined || stream.isAbandoned) return;
      if (open.isClosed) {
        this.#sayError(number, notOpen(number));
        return;
      }
      try {
        await work(stream).catch((thrown) => this.#failed(stream, MblmError.from(thrown), numFrames));
        if (open.numWaiting > 0 || open.isClosed) return;
        await stream.settleSoon().catch((thrown) => this.#failed(stream, MblmError.from(thrown), 0));
        stream.rest();
      } catch (thrown) {
        // What its session keeps cannot be changed any more.
        this.#sayBroken(number, MblmError.from(thrown));
        void this.#drop(number);
      }
    };
    open.queue = open.queue.then(run);
    return true;
  }

  /** Has bytes wait for a stream; ends the stream, and returns false, where its client could not be held back. */
  #hold(number: number, open: Open, bytes: number): boolean {
    if (this.#intake.add(open.waiting, bytes)) return true;
    const problem = `stream: more than ${MAX_WAITING_BYTES} bytes wait behind a generation that waits for acknowledgements`;
    this.#end(number, new MblmError("invalid_request", problem, { field: "stream" }));
    return false;
  }

  /** Ends a stream where it is, with an error that the client did not ask for. */
  #end(number: number, error: MblmError): void {
    this.#sayBroken(number, error);
    void this.#drop(number).then(() => this.#say({ type: "closed", stream: number }));
  }

  /** The number is taken at once, so that what follows in the same breath finds the stream. */
  #open(message: OpenMessage): void {
    const pushProgress = this.#reportOn(message);
    const start = async (waiting: Waiting): Promise<ByteStream> => {
      this.server.lifecycle.requireOpen();
      const session = message.session_id === null ? undefined : await this.#acquire(message);
      let release = (): void => {};
      try {
        const scoring = message.score ? { numTop: message.top_logprobs, entropy: false } : undefined;
        const { state, progress } = (await session?.read()) ?? {};
        const opened = await openContext(this.requester, this.server, message.model ?? state?.model.id);
        ({ release } = opened);
        const { context } = opened;
        const window = message.window ?? undefined;
        requireFit(state, context.engine.info);
        const options = { session, state, progress, window, scoring, pushProgress, release };
        const stream = this.#create(message.stream, waiting, context, options);
        this.#greet(stream, message);
        return stream;
      } catch (thrown) {
        release();
        await session?.end();
        throw thrown;
      }
    };
    this.#add(message.stream, start, pushProgress);
  }

  #reportOn({ stream: number, progress: seconds }: OpenMessage): PushProgress | undefined {
    if (seconds === null) return undefined;
    return new PushProgress(number, seconds, this.server.clock, (message) => {
      if (!this.#writer.isSlow) this.#say(message);
    });
  }

  /** Says what is there, and then what the client has missed of it. */
  #greet(stream: ByteStream, message: OpenMessage): void {
    const { received_bytes: bytes, received_messages: messages, session_id, stream: number } = message;
    const replay = this.#checkReplay(stream, bytes, messages);
    const { counts, length } = stream;
    this.#say({ type: "opened", stream: number, session_id, bytes: length, ...counts, window: PUSH_WINDOW });
    replay();
  }

  #checkReplay(stream: ByteStream, bytes: number | null, messages: number | null): () => void {
    if (bytes === null && messages === null) {
      stream.forgetSaid();
      return () => {};
    }
    const { said_bytes, said_messages } = stream.counts;
    return stream.replay(bytes ?? said_bytes, messages ?? said_messages);
  }

  async #acquire({ session_id, create, take_over, stream: number }: OpenMessage): Promise<AcquiredSession> {
    const id = session_id!;
    const options = { takeOver: take_over, onWanted: () => this.#handOver(number, id) };
    return create ? acquireOrCreate(this.#sessions, id, options) : this.#sessions.acquire(id, options);
  }

  /** Somebody else opens the session: this stream of it ends where it is. */
  #handOver(number: number, sessionId: string): void {
    if (!this.#streams.has(number)) return;
    this.#end(number, new MblmError("session_conflict", `The session ${sessionId} was taken over.`));
  }

  async #fork(stream: ByteStream, into: number, sessionId: string | null): Promise<void> {
    await stream.untilHeard();
    const problem = this.#whyNot(into, "into");
    if (problem !== undefined) throw problem;
    const forked = this.#copy(stream, sessionId);
    // At once, as that of an `open`: nothing else can take the number, and a connection that is closed meanwhile ends it.
    this.#add(into, async (waiting) => {
      const { context } = stream;
      // Likewise: the stream may be closed, and the model be unloaded behind it, before the session is there.
      const release = context.lease();
      try {
        const isThere = await forked.then(
          () => true,
          () => false,
        );
        if (!isThere) {
          release();
          return undefined; // the stream that it is of says why
        }
        const state = await forked;
        const session = sessionId === null ? undefined : await this.#sessions.acquire(sessionId);
        const copy = this.#create(into, waiting, context, { state, session, release });
        const { counts, length } = copy;
        this.#say({
          type: "opened",
          stream: into,
          session_id: sessionId,
          bytes: length,
          ...counts,
          window: PUSH_WINDOW,
        });
        return copy;
      } catch (thrown) {
        release();
        throw thrown;
      }
    });
    await forked;
    await stream.noteFork(into, sessionId);
  }

  /** The context of a stream, kept as a session if it is to be one. */
  async #copy(stream: ByteStream, sessionId: string | null): Promise<SequenceState | undefined> {
    const state = await stream.settle();
    if (sessionId !== null) await this.#sessions.create(sessionId, state);
    return state;
  }

  #create(number: number, waiting: Waiting, context: AppContext, options: ByteStreamOptions): ByteStream {
    const writer = this.#writer;
    const output: StreamOutput = {
      bytes: (payload) => writer.send(encodeFrame(number, payload)),
      message: (text) => this.#write(withStream(text, number)),
      get isSlow() {
        return writer.isSlow;
      },
      drained: (stop) => writer.drained(stop),
      awaitAcknowledgement: (isAwaited) => this.#intake.setNeedsClient(waiting, isAwaited),
    };
    return new ByteStream(context, output, `${this.id}-${number}`, number, options);
  }

  /** Takes a number and fills it when its stream is there, or gives it back if there is none. */
  #add(number: number, start: (waiting: Waiting) => Promise<ByteStream | undefined>, progress?: PushProgress): void {
    const problem = this.#whyNot(number, "stream");
    if (problem !== undefined) {
      this.#sayError(number, problem);
      return;
    }
    const open: Open = {
      waiting: { bytes: 0, needsClient: false },
      progress,
      stream: undefined,
      isClosed: false,
      queue: Promise.resolve(),
      numWaiting: 0,
      push: undefined,
      cancels: new Set(),
    };
    this.#streams.set(number, open);
    open.queue = start(open.waiting).then(
      (stream) => {
        open.stream = stream;
        if (stream === undefined) this.#free(number, open);
        else if (this.#isClosed) stream.abandon();
      },
      (thrown) => {
        progress?.end();
        this.#free(number, open);
        this.#sayError(number, MblmError.from(thrown));
      },
    );
  }

  /** Gives a number back, unless another stream has it by now. */
  #free(number: number, open: Open): void {
    if (this.#streams.get(number) === open) this.#streams.delete(number);
  }

  /** Ends a stream where it is, and lets go of its session. */
  async #drop(number: number): Promise<void> {
    const open = this.#streams.get(number);
    if (open === undefined) return;
    this.#streams.delete(number);
    open.stream?.abandon();
    await open.queue;
    await open.stream?.close();
  }

  #whyNot(number: number, field: string): MblmError | undefined {
    if (this.#streams.has(number)) {
      return new MblmError("invalid_request", `${field}: ${number} is open already`, { field });
    }
    if (this.#streams.size < MAX_STREAMS) return undefined;
    return new MblmError("overloaded", `A connection has at most ${MAX_STREAMS} streams.`);
  }

  /** What a server that shuts down refuses is not carried out: the client may ask another one. */
  async #failed(stream: ByteStream, error: MblmError, numFrames: 0 | 1): Promise<void> {
    countStreamRefusal(this.server.metrics, error);
    if (error.code === "shutting_down") stream.abandon();
    else await stream.fail(error, numFrames);
  }

  /** Says what was refused. */
  #sayError(stream: number | null, error: MblmError): void {
    countStreamRefusal(this.server.metrics, error);
    this.#sayBroken(stream, error);
  }

  /** Says what has ended. */
  #sayBroken(stream: number | null, error: MblmError): void {
    this.#say({ type: "error", stream, ...errorBody(error.code, error.message, error.field ?? null) });
  }

  #say(message: object): void {
    this.#write(JSON.stringify(message));
  }

  /** Every frame of a client may be answered with a message: it is not read from while more than may wait for it to be read. */
  #write(text: string): void {
    this.#intake.add(this.#unread, text.length);
    this.#writer.send(text, () => this.#intake.remove(this.#unread, text.length));
  }
}

function notOpen(number: number): MblmError {
  return new MblmError("invalid_request", `stream: ${number} is not open`, { field: "stream" });
}

/** A message that is said again may have been noted on another connection, under another number. */
function withStream(text: string, number: number): string {
  const message = JSON.parse(text) as { stream: number };
  return message.stream === number ? text : JSON.stringify({ ...message, stream: number });
}

/** Stream and type of a message of the wrong form, as far as it names them. */
function peek(text: string): { stream: number | null; type: string | null } {
  try {
    const { stream, type } = JSON.parse(text) as { stream?: unknown; type?: unknown };
    const isKnown = typeof type === "string" && type in MESSAGES;
    return { stream: typeof stream === "number" ? stream : null, type: isKnown ? type : null };
  } catch {
    return { stream: null, type: null };
  }
}
