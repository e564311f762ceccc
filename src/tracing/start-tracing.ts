import type { OpenTelemetry } from "./open-telemetry.js";
import type { TracingOptions } from "./tracing-options.js";

export type Tracing = OpenTelemetry;

/** Traces of requests, if they are wanted; the SDK is loaded only then. */
export async function startTracing(options: TracingOptions): Promise<Tracing | undefined> {
  if (options.endpoint === "") return undefined;
  const { OpenTelemetry } = await import("./open-telemetry.js");
  return new OpenTelemetry(options);
}
