import type { GenerationEvent, PromptScores } from "../../core/generation-event.js";
import type { PromptScoring } from "../../core/generation-request.js";
import { IdList } from "../../core/id-list.js";
import { type SequenceState, stateLength } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import { feedPieces, PIECE_BYTES } from "../../feeding/feed-pieces.js";
import type { AcquiredSession } from "../../session/session-store.js";
import { NO_PROGRESS, type PartialGeneration, type StreamProgress } from "../../session/stream-progress.js";
import { admitOne } from "../admission.js";
import type { AppContext } from "../app-context.js";
import { errorBody } from "../error-response.js";
import { observeSequence } from "../observe-sequence.js";
import { stopReason } from "../wire.js";
import { GenerationRun } from "./generation-run.js";
import type { GenerateMessage } from "./messages.js";
import { Outbox } from "./outbox.js";
import type { PushProgress } from "./push-progress.js";
import { SendWindow } from "./send-window.js";
import type { StreamOutput } from "./stream-output.js";
import { WakeUp } from "./wake-up.js";

type Finished = Extract<GenerationEvent, { type: "finished" }>;

export interface ByteStreamOptions {
  /** What it goes on from. */
  readonly state?: SequenceState | undefined;
  readonly progress?: StreamProgress | undefined;
  /** Present when the stream is a session, which keeps every change. */
  readonly session?: AcquiredSession | undefined;
  /** Bytes that may be unacknowledged; undefined: any number. */
  readonly window?: number | undefined;
  /** Present when what is pushed is scored. */
  readonly scoring?: PromptScoring | undefined;
  /** Present when the client wants to know how far the model is with what is pushed. */
  readonly pushProgress?: PushProgress | undefined;
  /** Lets go of the model. */
  readonly release: () => void;
}

/**
 * One context that grows by what is pushed and what is generated. One operation at a time; each is a frame of the client,
 * and counted, so that a client that lost its connection knows what was carried out.
 */
export class ByteStream {
  readonly #session: AcquiredSession | undefined;
  readonly #scoring: PromptScoring | undefined;
  readonly #progress: PushProgress | undefined;
  readonly #release: () => void;
  readonly #outbox: Outbox;
  /** What the outbox has, on its way to the client. */
  readonly #wire: SendWindow;
  readonly #acknowledged = new WakeUp();
  /** Aborted when nobody listens any more. */
  readonly #abandoned = new AbortController();
  /** Undefined while nothing was fed, and of a session while nothing is asked for: then it is read again. */
  #state: SequenceState | undefined;
  /** Length of the state. */
  #length = 0;
  #frames: number;
  #partial: PartialGeneration | undefined;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #pendingFrames = 0;
  /** Of the pending bytes that are being fed. */
  #fedBytes = 0;
  /** What its session could not be changed for: then it keeps less than is counted here. */
  #lost: unknown;

  constructor(
    /** With the model. */
    readonly context: AppContext,
    private readonly output: StreamOutput,
    /** Names the stream in the engine. */
    private readonly id: string,
    /** Its number on the connection. */
    private readonly number: number,
    { state, progress = NO_PROGRESS, session, window, scoring, pushProgress, release }: ByteStreamOptions,
  ) {
    this.#session = session;
    this.#scoring = scoring;
    this.#progress = pushProgress;
    this.#release = release;
    this.#adoptState(state);
    this.rest();
    this.#frames = progress.frames;
    this.#partial = progress.partial;
    this.#outbox = new Outbox(progress, window);
    this.#wire = new SendWindow(output, window, progress.bytesSaid);
  }

  /** Bytes of the context. */
  get length(): number {
    return this.#pendingBytes + this.#length;
  }

  /** Frames carried out, and what was ever said. */
  get counts(): { readonly frames: number; readonly said_bytes: number; readonly said_messages: number } {
    return {
      frames: this.#frames,
      said_bytes: this.#outbox.bytesSaid,
      said_messages: this.#outbox.messagesSaid,
    };
  }

  /** Returns what says again what did not arrive; to be called before anything else is said. @throws MblmError `invalid_request` when that is not kept any more */
  replay(bytes: number, messages: number): () => void {
    const parts = this.#outbox.since(
      Math.min(bytes, this.#outbox.bytesSaid),
      Math.min(messages, this.#outbox.messagesSaid),
    );
    if (parts === undefined) {
      throw new MblmError("invalid_request", "received_bytes: what follows is not kept any more; open without it", {
        field: "received_bytes",
      });
    }
    this.#outbox.acknowledge(bytes, messages);
    this.#wire.rewind(Math.min(bytes, this.#outbox.bytesSaid));
    return () => {
      for (const part of parts) {
        if (typeof part === "string") this.#wire.message(part);
        else this.#wire.bytes(part);
      }
    };
  }

  /** All that was said before has arrived. */
  forgetSaid(): void {
    this.#outbox.acknowledge(this.#outbox.bytesSaid, this.#outbox.messagesSaid);
  }

  /** @throws MblmError `invalid_request` when it was not said yet */
  acknowledge(bytes: number, messages: number): void {
    for (const [field, value, said] of [
      ["bytes", bytes, this.#wire.bytesSent],
      ["messages", messages, this.#outbox.messagesSaid],
    ] as const) {
      if (value > said) throw new MblmError("invalid_request", `${field}: only ${said} were said so far`, { field });
    }
    this.#outbox.acknowledge(bytes, messages);
    this.#wire.acknowledge(bytes);
    this.#acknowledged.wakeAll();
  }

  /** Resolves when all that was said is on its way, or nobody listens any more. */
  async flushed(): Promise<void> {
    await this.#untilAcknowledged(() => this.#wire.isEmpty, this.#abandoned.signal);
  }

  /** Lets others use the session, and the model be unloaded. */
  async close(): Promise<void> {
    this.#progress?.end();
    await this.#session?.end();
    this.#release();
  }

  /** Nobody listens any more: what runs is interrupted where it is, and kept so that it can be gone on with. */
  abandon(): void {
    this.#progress?.end();
    this.#abandoned.abort();
  }

  get isAbandoned(): boolean {
    return this.#abandoned.signal.aborted;
  }

  /** Adds bytes, of so many frames, to the context; they wait until something else is asked, or there is a whole piece to feed. */
  async push(bytes: Uint8Array, numFrames: number): Promise<void> {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.#pendingFrames += numFrames;
    if (this.#pendingBytes >= PIECE_BYTES) await this.settle();
  }

  /** What was pushed to a session, is to be scored, or is reported on, waits no longer when nothing else is asked. */
  async settleSoon(): Promise<void> {
    if (this.#session !== undefined || this.#scoring !== undefined || this.#progress !== undefined) await this.settle();
  }

  /** Nothing is asked for the moment: a session's state is where it is kept, and need not be here as well. */
  rest(): void {
    if (this.#session !== undefined) this.#state = undefined;
  }

  /** Feeds what was pushed to the model; returns the state of the whole context. When it fails, it was not pushed. */
  async settle(): Promise<SequenceState | undefined> {
    if (this.#pending.length === 0) {
      await this.#load();
      return this.#state;
    }
    this.#partial = undefined;
    if (this.#scoring !== undefined) await this.untilHeard(); // many times what is pushed will be said
    const scores: PromptScores[] = [];
    const start = this.length - this.#pendingBytes;
    try {
      this.#adoptState(await this.#feed(scores));
    } catch (thrown) {
      this.#progress?.drop(this.#pendingBytes - this.#fedBytes);
      if (!this.isAbandoned) this.#countPending();
      throw thrown;
    } finally {
      this.#fedBytes = 0;
    }
    this.#countPending(); // even if nobody listens any more: the engine had done it before it heard of that
    const texts = scores.map((part, i) => {
      const offset = scores.slice(0, i).reduce((sum, { logprobs }) => sum + logprobs.length, start);
      return this.#note({ type: "scores", stream: this.number, offset, ...scoresBody(part) });
    });
    await this.#commit();
    for (const text of texts) this.#wire.message(text);
    this.#say({ type: "ack", stream: this.number, frames: this.#frames, bytes: this.length });
    return this.#state;
  }

  /** Keeps the context as a new session. */
  async snapshot(sessionId: string | undefined): Promise<void> {
    const state = await this.settle();
    const { id } = await this.context.sessions.create(sessionId, state);
    await this.#finishFrame({ type: "saved", stream: this.number, session_id: id, bytes: this.length });
  }

  /** Says that its context is now that of another stream, too. */
  async noteFork(into: number, sessionId: string | null): Promise<void> {
    await this.#finishFrame({ type: "forked", stream: this.number, into, session_id: sessionId, bytes: this.length });
  }

  /**
   * Something could not be carried out.
   *
   * @param numFrames frames that count as done with this message, and did not before
   * @throws MblmError when the session does not keep what was carried out: then the stream cannot go on
   */
  async fail(error: MblmError, numFrames: 0 | 1): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost;
    await this.untilHeard();
    if (this.isAbandoned) return;
    const body = errorBody(error.code, error.message, error.field ?? null);
    await this.#finishFrame({ type: "error", stream: this.number, ...body }, numFrames);
  }

  /**
   * Generates; says `finished` at the end. What was interrupted on the way goes on when there is room: only what has not begun
   * is refused.
   *
   * @param cancelled ends it where it is
   * @throws MblmError when it is refused or fails
   */
  async generate(message: GenerateMessage, cancelled: AbortSignal): Promise<void> {
    if (this.#scoring !== undefined) await this.settle();
    const partial = this.#partial;
    this.#partial = undefined;
    const run = new GenerationRun(message, this.#pendingBytes, this.context, partial);
    const stop = AbortSignal.any([cancelled, this.#abandoned.signal]);
    for (;;) {
      await this.untilHeard(stop);
      if (stop.aborted) return this.#end(run);
      if (await this.#generatePart(run, cancelled)) return;
    }
  }

  /** Resolves when the client has read and acknowledged enough for more to be said, nobody listens any more, or `stop` is aborted. */
  async untilHeard(stop: AbortSignal = this.#abandoned.signal): Promise<void> {
    await this.output.drained(stop);
    await this.#untilAcknowledged(() => !this.#outbox.isFull, stop);
  }

  /** Waits until the client has acknowledged enough, or `stop` is aborted. */
  async #untilAcknowledged(isEnough: () => boolean, stop: AbortSignal): Promise<void> {
    if (isEnough()) return;
    this.output.awaitAcknowledgement(true);
    while (!isEnough() && !stop.aborted) await this.#acknowledged.next(stop);
    this.output.awaitAcknowledgement(false);
  }

  /** Returns whether the generation is over, for now or for good; if not, the client has to read first. */
  async #generatePart(run: GenerationRun, cancelled: AbortSignal): Promise<boolean> {
    const { context, output } = this;
    const pause = new AbortController();
    const numBefore = run.numGenerated;
    const anyEnd = AbortSignal.any([this.#abandoned.signal, cancelled]);
    const waitsForRoom = numBefore > 0;
    return this.#inside(anyEnd, waitsForRoom, async ({ signal: shutdown }) => {
      const stop = AbortSignal.any([shutdown, this.#abandoned.signal, cancelled, pause.signal]);
      await this.#load();
      const { metrics, clock } = context;
      const submittedAt = clock.now();
      const events = await admitOne(context.engine, { ...this.#toRequest(run), waitsForRoom }, stop);
      const withheld = new IdList();
      for await (const event of observeSequence(events, metrics, clock, submittedAt)) {
        if (event.type === "failed") throw new MblmError(event.code, event.message);
        if (event.type === "checkpoint" && !stop.aborted) await this.#checkpoint(run, event);
        if (event.type === "bytes") {
          run.take(event.ids);
          // What comes after an abort may have been held back until then.
          if (stop.aborted) for (const id of event.ids) withheld.push(id);
          else this.#sayIds(event.ids);
          if (this.#outbox.isFull || output.isSlow) pause.abort();
        }
        if (event.type !== "finished") continue;
        if (event.reason !== "abort") {
          this.#sayIds(withheld.first(withheld.length));
          this.#adopt(event.state);
          await this.#finishGeneration(event.reason, event, run.usage(event.usage, numBefore));
          return true;
        }
        run.interrupt(event.numHeld ?? 0, event.usage);
        this.#sayIds(withheld.first(withheld.length - (event.numHeld ?? 0)));
        this.#adopt(event.state);
        if (shutdown.aborted) this.abandon();
        if (!cancelled.aborted && !this.isAbandoned) return false;
        await this.#end(run);
        return true;
      }
      throw new MblmError("engine_failed", "The engine ended a sequence without a word.");
    });
  }

  /** Ends a generation that was interrupted: kept to be gone on with when nobody listens, else over. */
  async #end(run: GenerationRun): Promise<void> {
    if (this.isAbandoned) {
      if (this.#pending.length > 0) return; // nothing has run
      this.#partial = run.toPartial();
      await this.#commit();
      return;
    }
    this.#sayIds(run.held);
    await this.settle();
    await this.#finishGeneration("cancelled", undefined, run.usage(undefined, run.numGenerated));
  }

  async #finishGeneration(reason: string, event: Finished | undefined, usage: object): Promise<void> {
    await this.#finishFrame({
      type: "finished",
      stream: this.number,
      finish_reason: reason,
      stop_reason: stopReason(event?.matchedStop),
      usage,
      bytes: this.length,
    });
  }

  /** Writes the session on the way, so that little is lost if the server dies. */
  async #checkpoint(
    run: GenerationRun,
    { state, held }: Extract<GenerationEvent, { type: "checkpoint" }>,
  ): Promise<void> {
    const progress = this.#toProgress(this.#frames + this.#pendingFrames, run.toPartial(held));
    await this.#session?.commit({ state, progress });
  }

  #toRequest(run: GenerationRun) {
    const { sessionCheckpointBytes } = this.context.config;
    const writesOnTheWay = this.#session !== undefined && sessionCheckpointBytes > 0;
    return {
      ...run.toRequest(),
      id: this.id,
      prompt: Uint16Array.from(Buffer.concat(this.#pending)),
      returnState: true,
      ...(this.#state === undefined ? {} : { resume: this.#state }),
      ...(writesOnTheWay ? { checkpointEvery: sessionCheckpointBytes } : {}),
    };
  }

  async #feed(scores: PromptScores[]): Promise<SequenceState | undefined> {
    const bytes = Buffer.concat(this.#pending);
    const { context, id } = this;
    return this.#inside(this.#abandoned.signal, true, async (controller) => {
      await this.#load();
      if (bytes.length === 0) return this.#state;
      const options = {
        id,
        priority: 0,
        resume: this.#state,
        isPatient: true,
        ...(this.#scoring && { scoring: this.#scoring }),
        onFed: (numBytes: number) => {
          this.#fedBytes += numBytes;
          this.#progress?.prefill(numBytes);
        },
      };
      controller.signal.addEventListener("abort", () => this.abandon());
      const stop = AbortSignal.any([controller.signal, this.#abandoned.signal]);
      const feed = feedPieces(context.engine, cut(bytes), options, stop);
      let next = await feed.next();
      for (; !next.done; next = await feed.next()) {
        context.metrics.scored(next.value.logprobs.length);
        scores.push(next.value);
      }
      return next.value;
    });
  }

  /**
   * Runs what has a state in the engine: not too many at a time have one there, or wait with it.
   *
   * @param waitsForRoom whether it waits where it would be refused: for its key's limits out here, where it is in nobody's way
   */
  #inside<T>(end: AbortSignal, waitsForRoom: boolean, work: (controller: AbortController) => Promise<T>): Promise<T> {
    const { lifecycle, streamGate, caller } = this.context;
    return lifecycle.run(async (controller) => {
      const stop = AbortSignal.any([controller.signal, end]);
      if (waitsForRoom) (await caller?.limiter.enterInTurn(stop))?.();
      return streamGate.pass(stop, () => work(controller), waitsForRoom);
    });
  }

  /** A sequence that was interrupted before it got a slot has no state: everything stays as it was. */
  #adopt(state: SequenceState | undefined): void {
    if (state === undefined) return;
    this.#adoptState(state);
    this.#progress?.prefill(this.#pendingBytes);
    this.#countPending();
  }

  #adoptState(state: SequenceState | undefined): void {
    this.#state = state;
    this.#length = state === undefined ? 0 : stateLength(state);
  }

  async #load(): Promise<void> {
    if (this.#state === undefined && this.#length > 0) this.#state = (await this.#session!.read()).state;
  }

  /** What was pushed is carried out. */
  #countPending(): void {
    this.#frames += this.#pendingFrames;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#pendingFrames = 0;
  }

  /** The frame is carried out: its answer is said when everything is kept. */
  async #finishFrame(message: object, numFrames = 1): Promise<void> {
    await this.settle();
    this.#partial = undefined;
    this.#frames += numFrames;
    const text = this.#note({ ...message, frame: this.#frames });
    await this.#commit();
    this.#wire.message(text);
  }

  async #commit(): Promise<void> {
    if (this.#session === undefined) return;
    try {
      await this.#session.commit({ state: this.#state, progress: this.#toProgress(this.#frames, this.#partial) });
    } catch (thrown) {
      this.#lost = thrown;
      throw thrown;
    }
  }

  #toProgress(frames: number, partial: PartialGeneration | undefined): StreamProgress {
    return { frames, ...this.#outbox.toProgress(), ...(partial && { partial }) };
  }

  /** Says those that are bytes. */
  #sayIds(ids: Uint16Array): void {
    const bytes = Uint8Array.from(ids.filter((id) => id < 256));
    if (bytes.length === 0) return;
    this.#outbox.addBytes(bytes);
    this.#wire.bytes(bytes);
  }

  /** Puts a message among what may have to be said again. */
  #note(message: object): string {
    const text = JSON.stringify(message);
    this.#outbox.addMessage(text);
    return text;
  }

  #say(message: object): void {
    this.#wire.message(JSON.stringify(message));
  }
}

function scoresBody({ logprobs, top }: PromptScores): object {
  return { logprobs: Array.from(logprobs), ...(top && { top_logprobs: top }) };
}

async function* cut(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) yield bytes.subarray(start, start + PIECE_BYTES);
}
