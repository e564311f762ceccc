import type { Metric } from "prom-client";
import type { HistogramCounts } from "../core/histogram.js";

/** The counts of one set of labels. */
export interface LabelledCounts {
  readonly labels: Readonly<Record<string, string>>;
  readonly counts: HistogramCounts;
}

/** A histogram that somebody else counts: what the registry asks a metric for, and nothing else. */
export function countedElsewhere(name: string, help: string, read: () => Promise<LabelledCounts[]>): Metric {
  const get = async () => ({
    name,
    help,
    type: "histogram",
    aggregator: "sum",
    values: (await read()).flatMap(({ labels, counts }) => toValues(name, labels, counts)),
  });
  return { name, help, get, reset: () => {} } as unknown as Metric;
}

/** Prometheus' buckets are cumulative. */
function toValues(name: string, labels: LabelledCounts["labels"], { bounds, counts, sum }: HistogramCounts) {
  let total = 0;
  const buckets = counts.map((count, i) => {
    total += count;
    return { metricName: `${name}_bucket`, labels: { le: bounds[i] ?? "+Inf", ...labels }, value: total };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: total },
  ];
}
