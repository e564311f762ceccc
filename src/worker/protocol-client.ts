import type { EngineStats } from "../core/engine-stats.js";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import type { EngineClient, EngineState, RuntimeInfo } from "./engine-client-interface.js";
import { decodeError } from "./error-codec.js";
import { decodeEvents } from "./event-codec.js";
import { EventStream } from "./event-stream.js";
import { PendingReplies } from "./pending-replies.js";
import type { ClientMessage, EngineMessage } from "./protocol.js";

/** Ends the engine on the other side of the pipe and resolves when it is gone. */
export type Shutdown = () => Promise<void>;

/** An engine client over any pipe that carries the protocol. */
export class ProtocolClient implements EngineClient {
  readonly #streams = new Map<number, EventStream<GenerationEvent>>();
  readonly #stats = new PendingReplies<EngineStats>();
  readonly #failureCallbacks: ((error: MblmError) => void)[] = [];
  #failure: MblmError | undefined;
  #closing: Promise<void> | undefined;
  #nextKey = 0;

  constructor(
    readonly info: ModelInfo,
    readonly runtime: RuntimeInfo,
    private readonly send: (message: ClientMessage) => void,
    private readonly shutdown: Shutdown,
    readonly numSlots: number,
    private readonly maxWaiting: number,
  ) {}

  get state(): EngineState {
    if (this.#closing !== undefined) return "closed";
    return this.#failure === undefined ? "ready" : "failed";
  }

  /** As many are open as the engine can hold. */
  get isFull(): boolean {
    return this.#streams.size >= this.#maxOpen;
  }

  async *submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    this.#requireReady();
    // More than the engine can hold are refused here, at once, instead of at the end of its turn.
    if (!request.waitsForRoom && this.isFull) {
      throw new MblmError("overloaded", `All slots are busy and ${this.#maxOpen} requests are open; try again later.`);
    }
    const key = this.#nextKey++;
    const stream = new EventStream<GenerationEvent>();
    const abort = (): void => this.send({ type: "abort", key });
    this.#streams.set(key, stream);
    try {
      this.send({ type: "submit", key, request: { ...request, prompt: request.prompt.slice() } });
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
      for (let isFirst = true; ; isFirst = false) {
        const event = await stream.next();
        if (event.type === "failed" && isFirst) throw new MblmError(event.code, event.message);
        yield event;
        if (isTerminal(event)) return;
      }
    } finally {
      signal.removeEventListener("abort", abort);
      // Still open: the consumer left early (a refused or failed stream is already gone).
      if (this.#streams.delete(key) && this.state === "ready") abort();
    }
  }

  async stats(): Promise<EngineStats> {
    this.#requireReady();
    return this.#stats.request((id) => this.send({ type: "stats", id }));
  }

  onFailure(callback: (error: MblmError) => void): void {
    if (this.#failure !== undefined) callback(this.#failure);
    else this.#failureCallbacks.push(callback);
  }

  close(): Promise<void> {
    this.#closing ??= this.shutdown();
    return this.#closing;
  }

  /** Takes a message of the engine. */
  receive(message: EngineMessage): void {
    switch (message.type) {
      case "events":
        decodeEvents(message.events, (key, event) => {
          this.#streams.get(key)?.push(event);
          // It holds nothing of the engine any more, however late its reader is.
          if (isTerminal(event)) this.#streams.delete(key);
        });
        break;
      case "refused":
        this.#streams.get(message.key)?.fail(decodeError(message.error));
        this.#streams.delete(message.key);
        break;
      case "stats":
        this.#stats.resolve(message.id, message.stats);
        break;
      case "failed":
        this.fail(decodeError(message.error));
        break;
      case "closed":
        this.#endAll(new MblmError("shutting_down", "The engine is shutting down."));
        break;
      case "ready":
        break; // whoever starts the engine waits for it
    }
  }

  /** The engine is gone: ends what is open and refuses what comes. Only the first call counts, and none after `close`. */
  fail(error: MblmError): void {
    this.#endAll(error);
    if (this.#failure !== undefined || this.#closing !== undefined) return;
    this.#failure = error;
    for (const callback of this.#failureCallbacks) callback(error);
  }

  #endAll(error: MblmError): void {
    const event: GenerationEvent = { type: "failed", code: error.code, message: error.message };
    for (const stream of this.#streams.values()) stream.push(event);
    this.#streams.clear();
    this.#stats.rejectAll(error);
  }

  get #maxOpen(): number {
    return this.numSlots + this.maxWaiting;
  }

  #requireReady(): void {
    if (this.#closing !== undefined) throw new MblmError("shutting_down", "The engine is shutting down.");
    if (this.#failure !== undefined) throw this.#failure;
  }
}

function isTerminal(event: GenerationEvent): boolean {
  return event.type === "finished" || event.type === "failed";
}
