import { type Context, DiagLogLevel, diag, ROOT_CONTEXT, type Tracer } from "@opentelemetry/api";
import { setGlobalErrorHandler, W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";
import type { Clock } from "../core/clock.js";
import { RequestTrace, type TracedRequest } from "./request-trace.js";
import type { TracingOptions } from "./tracing-options.js";

const NAME = "mblm-server";
const PATH = "/v1/traces";
/** A collector that does not answer must not keep the server from ending. */
const CLOSE_SECONDS = 5;

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Sends spans to a collector; sampling, batching, headers and the service's name are as `OTEL_…` variables say. */
export class OpenTelemetry {
  readonly #provider: BasicTracerProvider;
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  readonly #report: TracingOptions["report"];
  readonly #propagator = new W3CTraceContextPropagator();

  constructor({ endpoint, version, clock, report }: TracingOptions) {
    this.#report = report;
    setGlobalErrorHandler((problem) => report(toError(problem)));
    const complain = (message: string): void => report(new Error(message));
    const ignore = (): void => {};
    const logger = { error: complain, warn: complain, info: ignore, debug: ignore, verbose: ignore };
    diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
    const own = resourceFromAttributes({ "service.name": NAME, "service.version": version });
    const resource = defaultResource()
      .merge(own)
      .merge(detectResources({ detectors: [envDetector] }));
    const exporter = new OTLPTraceExporter({ url: tracesUrl(endpoint) });
    this.#provider = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(exporter)] });
    this.#tracer = this.#provider.getTracer(NAME, version);
    this.#clock = clock;
  }

  /** Begins the tree of a request; a `traceparent` among its headers is its parent. */
  begin(request: TracedRequest, headers: Headers): RequestTrace {
    const parent: Context = this.#propagator.extract(ROOT_CONTEXT, headers, {
      get: (carrier: Headers, key) => carrier[key],
      keys: (carrier: Headers) => Object.keys(carrier),
    });
    return new RequestTrace(this.#tracer, wallClock(this.#clock), request, parent);
  }

  /** Sends what has not been sent yet. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_SECONDS * 1000);
    });
    await Promise.race([this.#provider.shutdown().catch((thrown) => this.#report(toError(thrown))), timeout]);
    clearTimeout(timer);
  }
}

/** As OpenTelemetry's base URLs are understood; one that names the path already is taken as it is. */
function tracesUrl(endpoint: string): string {
  return endpoint.endsWith(PATH) ? endpoint : endpoint.replace(/\/*$/, PATH);
}

function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** Unix milliseconds that do not jump while a request runs. */
function wallClock(clock: Clock): () => number {
  const offset = Date.now() - clock.now() * 1000;
  return () => offset + clock.now() * 1000;
}
