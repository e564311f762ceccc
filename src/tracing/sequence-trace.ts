import { type Attributes, type Context, type Span, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { outcomeOf } from "../core/outcome.js";
import type { ErrorCode } from "../errors.js";

type Finished = Extract<GenerationEvent, { type: "finished" }>;

export interface SequenceKind {
  /** `gen_ai.operation.name` */
  readonly operation: string;
  readonly model: string;
}

/**
 * The span of one sequence, with a child for each phase: `queue`, `prefill`, `decode`. Attributes are those of the GenAI
 * conventions, where a token is a byte; none has anything of prompt or output in it.
 */
export class SequenceTrace {
  readonly #beganAt: number;
  readonly #context: Context;
  #numBytes = 0;
  #hasEnded = false;

  /**
   * @param parent context of the request
   * @param now Unix milliseconds
   * @param onFailure the request has failed with it
   */
  constructor(
    private readonly tracer: Tracer,
    private readonly span: Span,
    parent: Context,
    private readonly now: () => number,
    request: GenerationRequest,
    kind: SequenceKind,
    private readonly onFailure: () => void,
  ) {
    this.#beganAt = now();
    this.#context = trace.setSpan(parent, span);
    span.setAttributes(describe(request, kind));
  }

  /** Notes an event of the engine. */
  take(event: GenerationEvent): void {
    if (event.type === "bytes") {
      if (this.#numBytes === 0)
        this.span.setAttribute("gen_ai.response.time_to_first_chunk", (this.now() - this.#beganAt) / 1000);
      this.#numBytes += event.ids.length;
    } else if (event.type === "finished") {
      this.#finish(event);
    } else if (event.type === "failed") {
      this.fail(event.code);
    }
  }

  /** It was refused, ran out of time, or broke down: only the last is a failure of the request, too. */
  fail(code: ErrorCode): void {
    const outcome = outcomeOf(code);
    this.#end(outcome, code);
    if (outcome === "error") this.onFailure();
  }

  /** Nothing more comes; without a last event, its reader has left it, and its phases are not known. */
  end(): void {
    if (this.#hasEnded) return;
    this.span.setAttribute("gen_ai.usage.output_tokens", this.#numBytes);
    this.#end("abort", "aborted");
  }

  #finish({ reason, usage, timings }: Finished): void {
    this.span.setAttributes({
      "gen_ai.usage.input_tokens": usage.promptBytes,
      "gen_ai.usage.output_tokens": usage.generatedBytes,
      "gen_ai.usage.cache_read.input_tokens": usage.cachedBytes,
    });
    const slotAt = this.#phase("queue", this.#beganAt, timings.queueSeconds);
    const prefill = { "mblm.prefill.chunks": timings.prefillChunks };
    // What was aborted in the queue has no later phases.
    const hasSlot = reason !== "abort" || timings.prefillSeconds > 0;
    const fedAt = hasSlot ? this.#phase("prefill", slotAt, timings.prefillSeconds, prefill) : slotAt;
    if (usage.generatedBytes > 0) this.#phase("decode", fedAt, timings.decodeSeconds);
    this.#end(reason, reason === "abort" ? "aborted" : undefined);
  }

  /** Returns the phase's end. */
  #phase(name: string, startTime: number, seconds: number, attributes: Attributes = {}): number {
    const end = startTime + seconds * 1000;
    this.tracer.startSpan(name, { startTime, attributes }, this.#context).end(end);
    return end;
  }

  #end(reason: string, error: ErrorCode | undefined): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.span.setAttribute("gen_ai.response.finish_reasons", [reason]);
    if (error !== undefined) {
      this.span.setAttribute("error.type", error);
      this.span.setStatus({ code: SpanStatusCode.ERROR });
    }
    this.span.end(this.now());
  }
}

function describe({ id, sampling, stop }: GenerationRequest, { operation, model }: SequenceKind): Attributes {
  return {
    "gen_ai.operation.name": operation,
    "gen_ai.provider.name": "mblm-server",
    "gen_ai.request.model": model,
    "gen_ai.response.model": model,
    "gen_ai.response.id": id,
    "gen_ai.output.type": "text",
    "gen_ai.request.max_tokens": stop.maxNewBytes,
    "gen_ai.request.temperature": sampling.temperature,
    "gen_ai.request.top_p": sampling.topP,
    "gen_ai.request.top_k": sampling.topK,
    "gen_ai.request.presence_penalty": sampling.presencePenalty,
    "gen_ai.request.frequency_penalty": sampling.frequencyPenalty,
  };
}
