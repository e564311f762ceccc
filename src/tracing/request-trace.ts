import {
  type Attributes,
  type Context,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import type { GenerationRequest } from "../core/generation-request.js";
import { SequenceTrace } from "./sequence-trace.js";

/** What is known of a request when it arrives. */
export interface TracedRequest {
  /** As in logs and in the header `x-request-id`. */
  readonly id: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly scheme: string;
  readonly clientAddress: string | undefined;
  readonly userAgent: string | undefined;
}

/** Sequences of one request that get spans; the pieces of a large file may be many more. */
const MAX_SEQUENCES = 128;

/** What the GenAI conventions call an operation; routes that are not here complete text. */
const OPERATIONS: Readonly<Record<string, string>> = {
  "/v1/chat/completions": "chat",
  "/v1/vqa": "visual_question_answering",
  "/v1/score": "score",
};
const DEFAULT_OPERATION = "text_completion";

/** The span of one HTTP request, from its arrival to its last byte, and those of the sequences that it asks for. */
export class RequestTrace {
  readonly #span: Span;
  readonly #context: Context;
  #route: string | undefined;
  #numSequences = 0;
  #isUpgraded = false;

  /** @param now Unix milliseconds */
  constructor(
    private readonly tracer: Tracer,
    private readonly now: () => number,
    private readonly request: TracedRequest,
    parent: Context,
  ) {
    const options = { kind: SpanKind.SERVER, startTime: now(), attributes: describe(request) };
    this.#span = tracer.startSpan(request.method, options, parent);
    this.#context = trace.setSpan(parent, this.#span);
  }

  /** What log lines of the request say. */
  get ids(): { trace_id: string; span_id: string } {
    const { traceId, spanId } = this.#span.spanContext();
    return { trace_id: traceId, span_id: spanId };
  }

  /** @param route as it is registered */
  set route(route: string) {
    this.#route = route;
    this.#span.updateName(`${this.request.method} ${route}`);
    this.#span.setAttribute("http.route", route);
  }

  /**
   * Begins the span of a sequence. On a WebSocket, which may be open for days, each is a tree of its own that is linked to the
   * request's. Undefined for those that are too many.
   */
  beginSequence(request: GenerationRequest, model: string): SequenceTrace | undefined {
    if (!this.#isUpgraded && ++this.#numSequences > MAX_SEQUENCES) {
      this.#span.setAttribute("mblm.sequences", this.#numSequences);
      return undefined;
    }
    const operation = OPERATIONS[this.#route ?? ""] ?? DEFAULT_OPERATION;
    const options = this.#isUpgraded ? { root: true, links: [{ context: this.#span.spanContext() }] } : {};
    const attributes = { "mblm.request.id": this.request.id };
    const span = this.tracer.startSpan(
      `${operation} ${model}`,
      { ...options, startTime: this.now(), attributes },
      this.#context,
    );
    const kind = { operation, model };
    return new SequenceTrace(this.tracer, span, this.#context, this.now, request, kind, () => this.#fail());
  }

  /** The request has become a WebSocket: it is over as one. */
  upgrade(): void {
    this.#isUpgraded = true;
    this.#span.setAttribute("http.response.status_code", 101);
    this.#span.end(this.now());
  }

  /**
   * @param status undefined when none was sent
   * @param isWhole whether all of the answer was sent
   */
  end(status: number | undefined, isWhole: boolean): void {
    if (this.#isUpgraded) return;
    if (status !== undefined) this.#span.setAttribute("http.response.status_code", status);
    if (!isWhole) {
      this.#span.setAttribute("error.type", "client_disconnected");
      this.#span.setStatus({ code: SpanStatusCode.ERROR, message: "The client went away." });
    } else if (status !== undefined && status >= 500) {
      this.#span.setAttribute("error.type", String(status));
      this.#fail();
    }
    this.#span.end(this.now());
  }

  #fail(): void {
    this.#span.setStatus({ code: SpanStatusCode.ERROR });
  }
}

function describe({ id, method, path, scheme, clientAddress, userAgent }: TracedRequest): Attributes {
  return {
    "mblm.request.id": id,
    "http.request.method": method,
    "url.path": path,
    "url.scheme": scheme,
    ...(clientAddress === undefined ? {} : { "client.address": clientAddress }),
    ...(userAgent === undefined ? {} : { "user_agent.original": userAgent }),
  };
}
