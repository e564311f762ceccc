import type { Clock } from "../core/clock.js";

export interface TracingOptions {
  /** Where an OpenTelemetry collector listens for OTLP over HTTP; empty for no traces. */
  readonly endpoint: string;
  /** Of this server. */
  readonly version: string;
  readonly clock: Clock;
  /** Called when spans could not be sent, or a setting was not understood. */
  readonly report: (error: Error) => void;
}
