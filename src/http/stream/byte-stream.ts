import type { GenerationRequest } from "../../core/generation-request.js";
import { type SequenceState, stateLength } from "../../core/state-snapshot.js";
import { MblmError } from "../../errors.js";
import type { AcquiredSession } from "../../session/session-store.js";
import type { AppContext } from "../app-context.js";
import { FEED_ONLY, PIECE_BYTES } from "../feed-pieces.js";
import { toGenerationOptions } from "../generation-options.js";
import { observeSequence } from "../observe-sequence.js";
import { stopReason, usageBody } from "../wire.js";
import type { GenerateMessage } from "./messages.js";

/** Where a stream's output goes; resolves when more may come. */
export interface StreamOutput {
  bytes(payload: Uint8Array): Promise<void>;
  message(message: object): Promise<void>;
}

/** One context that grows by what is pushed and what is generated. One operation at a time. */
export class ByteStream {
  #state: SequenceState | undefined;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #generation: AbortController | undefined;
  #isAbandoned = false;

  constructor(
    private readonly context: AppContext,
    private readonly output: StreamOutput,
    /** Names the stream in the engine. */
    private readonly id: string,
    state: SequenceState | undefined,
    /** Present when the stream is a session, which keeps every change. */
    private readonly session: AcquiredSession | undefined,
  ) {
    this.#state = state;
  }

  /** Bytes of the context. */
  get length(): number {
    return this.#pendingBytes + (this.#state === undefined ? 0 : stateLength(this.#state));
  }

  /** Lets others use the session. */
  close(): void {
    this.cancel();
    this.session?.end();
  }

  /** The client has gone: a generation that runs ends, and what it sent is not kept, for nobody knows what arrived. */
  abandon(): void {
    this.#isAbandoned = true;
    this.cancel();
  }

  /** Ends the generation that runs, if one does; what was sent is kept. */
  cancel(): void {
    this.#generation?.abort();
  }

  /** Adds bytes to the context; they wait until something is generated, or there is a whole piece to feed. */
  async push(bytes: Uint8Array): Promise<void> {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= PIECE_BYTES || this.session !== undefined) await this.settle();
  }

  /** Feeds what was pushed to the model; returns the state of the whole context. */
  async settle(): Promise<SequenceState | undefined> {
    if (this.#pendingBytes === 0) return this.#state;
    const request = this.#toRequest(FEED_ONLY);
    await this.context.lifecycle.run(async (controller) => {
      this.#generation = controller;
      for await (const event of this.context.engine.submit(request, controller.signal)) {
        if (event.type === "failed") throw new MblmError(event.code, event.message);
        if (event.type !== "finished") continue;
        if (event.reason === "abort") throw new MblmError("aborted", "The bytes were not added: cancelled.");
        await this.#keep(event.state);
      }
    });
    return this.#state;
  }

  /** Generates; says `finished` at the end. @throws MblmError when it is refused or fails */
  async generate(message: GenerateMessage): Promise<void> {
    const { context, output } = this;
    const { type: _, stream: number, ...fields } = message;
    const { maxNewBytes } = context.config;
    if (fields.max_tokens > maxNewBytes) {
      throw new MblmError("invalid_request", `max_tokens: must not exceed this server's limit of ${maxNewBytes}`, {
        field: "max_tokens",
      });
    }
    const body = { ...NOT_ASKED, ...fields };
    const request = this.#toRequest(toGenerationOptions(body, context.engine.info, context.constraints));
    await context.lifecycle.run(async (controller) => {
      this.#generation = controller;
      const arrivedAt = context.clock.now();
      const events = context.engine.submit(request, controller.signal);
      for await (const event of observeSequence(events, context.metrics, context.clock, arrivedAt)) {
        if (event.type === "failed") throw new MblmError(event.code, event.message);
        if (event.type === "bytes") await output.bytes(Uint8Array.from(event.ids.filter((id) => id < 256)));
        if (event.type !== "finished") continue;
        if (event.reason === "abort" && this.#isAbandoned) return;
        await this.#keep(event.state);
        await output.message({
          type: "finished",
          stream: number,
          finish_reason: event.reason === "abort" ? "cancelled" : event.reason,
          stop_reason: stopReason(event.matchedStop),
          usage: usageBody([event.usage], 1),
          bytes: this.length,
        });
      }
    });
  }

  /** What was pushed becomes the prompt. */
  #toRequest(options: Pick<GenerationRequest, "sampling" | "stop">): GenerationRequest {
    const prompt = Uint16Array.from(Buffer.concat(this.#pending));
    const resume = this.#state === undefined ? {} : { resume: this.#state };
    return { ...options, id: this.id, prompt, returnState: true, ...resume };
  }

  /** A sequence that was cancelled before it got a slot has no state: everything stays as it was. */
  async #keep(state: SequenceState | undefined): Promise<void> {
    if (state === undefined) return;
    await this.session?.commit(state);
    this.#state = state;
    this.#pending = [];
    this.#pendingBytes = 0;
  }
}

/** Fields of completions that a stream has no use for. */
const NOT_ASKED = {
  n: 1,
  stream: true,
  stream_options: null,
  stream_interval: 1,
  return_token_ids: false,
  truncate_prompt_tokens: null,
  request_id: null,
};
