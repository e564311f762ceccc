import { setImmediate } from "node:timers";
import type { Engine } from "../engine/engine.js";
import type { EventSink } from "../engine/event-outbox.js";
import { MblmError } from "../errors.js";
import { encodeError } from "./error-codec.js";
import { encodeEvents } from "./event-codec.js";
import type { ClientMessage, EngineMessage } from "./protocol.js";

/**
 * The engine's side of the protocol: takes messages and runs the engine while there is work. It yields to the event
 * loop after every step, so that an abort or a newcomer is seen within one turn.
 */
export class EngineHost {
  /** Resolves when the engine is closed and its memory released. */
  readonly closed: Promise<void>;
  readonly #engine: Engine;
  #resolveClosed = (): void => {};
  #isLooping = false;
  #isStepping = false;
  #state: "open" | "closing" | "closed" = "open";

  /**
   * @param createEngine makes the engine whose events go to the given sink
   * @param post sends a message to the client
   * @param dispose releases the model
   */
  constructor(
    createEngine: (sink: EventSink) => Engine,
    private readonly post: (message: EngineMessage) => void,
    private readonly dispose: () => void,
  ) {
    this.#engine = createEngine((events) => post({ type: "events", events: encodeEvents(events) }));
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  receive(message: ClientMessage): void {
    switch (message.type) {
      case "submit":
        this.#submit(message);
        break;
      case "abort":
        this.#engine.abort(message.key);
        break;
      case "stats":
        this.post({ type: "stats", id: message.id, stats: this.#engine.stats() });
        break;
      case "close":
        if (this.#state === "open") this.#state = "closing";
        if (!this.#isStepping) this.#close();
        break;
    }
    this.#wake();
  }

  #submit({ key, request }: Extract<ClientMessage, { type: "submit" }>): void {
    try {
      if (this.#state !== "open") throw new MblmError("shutting_down", "The engine is shutting down.");
      this.#engine.submit(key, request);
    } catch (thrown) {
      this.post({ type: "refused", key, error: encodeError(MblmError.from(thrown)) });
    }
  }

  #wake(): void {
    if (this.#isLooping || this.#state !== "open" || !this.#engine.hasWork) return;
    this.#isLooping = true;
    setImmediate(() => void this.#loop());
  }

  async #loop(): Promise<void> {
    this.#isStepping = true;
    try {
      await this.#engine.step();
    } catch (thrown) {
      this.#breakDown(MblmError.from(thrown));
    }
    this.#isStepping = false;
    this.#isLooping = false;
    if (this.#state === "closing") this.#close();
    this.#wake();
  }

  /** A step that throws has left sequences and slots in an unknown state: nothing of this engine can be used on. */
  #breakDown(error: MblmError): void {
    this.#state = "closing";
    this.#engine.failAll(error);
    this.post({ type: "failed", error: encodeError(error) });
  }

  #close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#engine.failAll(new MblmError("shutting_down", "The engine is shutting down."));
    this.dispose();
    this.post({ type: "closed" });
    this.#resolveClosed();
  }
}
