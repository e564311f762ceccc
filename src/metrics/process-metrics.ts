import { collectDefaultMetrics, Registry } from "prom-client";

/** Of Node's usual metrics, those whose names follow Prometheus' rules. */
const NAMES = [
  "process_cpu_seconds_total",
  "process_cpu_user_seconds_total",
  "process_cpu_system_seconds_total",
  "process_start_time_seconds",
  "process_resident_memory_bytes",
  "process_open_fds",
  "process_max_fds",
  "nodejs_eventloop_lag_seconds",
  "nodejs_eventloop_lag_p50_seconds",
  "nodejs_eventloop_lag_p99_seconds",
  "nodejs_eventloop_lag_max_seconds",
  "nodejs_heap_size_total_bytes",
  "nodejs_heap_size_used_bytes",
  "nodejs_external_memory_bytes",
];

/** Processor, memory, files and the event loop of this process. */
export function addProcessMetrics(registry: Registry): void {
  const all = new Registry();
  collectDefaultMetrics({ register: all });
  for (const name of NAMES) {
    const metric = all.getSingleMetric(name);
    if (metric !== undefined) registry.registerMetric(metric); // some exist on Linux only
  }
}
