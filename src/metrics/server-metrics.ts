import { Counter, Gauge, Registry } from "prom-client";
import type { EngineStats } from "../core/engine-stats.js";
import type { SessionStats } from "../core/session-stats.js";
import type { ErrorCode } from "../errors.js";
import { addDeviceMetrics } from "./device-metrics.js";
import { countedElsewhere } from "./engine-histogram.js";
import { ModelMetricFamilies, type ModelMetrics } from "./model-metrics.js";
import { addProcessMetrics } from "./process-metrics.js";
import { withVllmNames } from "./vllm-names.js";

const REFUSALS: readonly ErrorCode[] = [
  "invalid_request",
  "context_length_exceeded",
  "overloaded",
  "rate_limited",
  "shutting_down",
];

/** What the engine of a model says of itself. */
export interface ModelStats extends EngineStats {
  readonly model: string;
}

/**
 * Every metric of the server: names in base units, counters end in `_total`, all label values exist from the start.
 *
 * Invariants: the sum of `mblm_requests_total` over reasons is the number of accepted sequences that have ended; the count of
 * `mblm_time_to_first_byte_seconds` is the number of sequences that produced a byte.
 */
export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #refused: Counter<"code">;
  readonly #families: ModelMetricFamilies;
  readonly #models = new Map<string, ModelMetrics>();
  /** Of the scrape under way: asked once, for all metrics. */
  #stats: Promise<ModelStats[]> = Promise.resolve([]);
  #sessionStats: Promise<SessionStats> | undefined;

  /**
   * @param version of the server
   * @param readStats asked at every scrape: of the models that are loaded
   * @param readSessions asked at every scrape
   * @param hasVllmNames whether vLLM's names for the same numbers follow
   */
  constructor(
    version: string,
    private readonly readStats: () => Promise<ModelStats[]>,
    private readonly readSessions: () => Promise<SessionStats>,
    private readonly hasVllmNames: boolean,
  ) {
    const registers = [this.#registry];
    const build = { name: "mblm_build_info", help: "1; the label says the server's version.", registers };
    new Gauge({ ...build, labelNames: ["version"] }).set({ version }, 1);
    this.#refused = new Counter({
      name: "mblm_requests_refused_total",
      help: "Requests refused before any work, by error code.",
      labelNames: ["code"],
      registers,
    });
    for (const code of REFUSALS) this.#refused.inc({ code }, 0);
    this.#families = new ModelMetricFamilies(this.#registry);
    this.#addEngineGauges(() => this.#stats);
    addDeviceMetrics(this.#registry, () => this.#stats);
    const sessions: [name: string, help: string, read: (stats: SessionStats) => number | undefined][] = [
      ["mblm_sessions", "Sessions that exist.", (s) => s.numSessions],
      ["mblm_sessions_in_memory", "Sessions whose state is in memory.", (s) => s.numInMemory],
      ["mblm_session_bytes", "Memory of the states of sessions.", (s) => s.memoryBytes],
      ["mblm_session_disk_bytes", "Bytes of the session folder.", (s) => s.storedBytes],
      ["mblm_session_store_up", "Whether what keeps the sessions answers.", (s) => (s.isUp ? 1 : 0)],
    ];
    for (const [name, help, read] of sessions) this.#gauge(name, help, async () => read(await this.#sessionStats!));
    addProcessMetrics(this.#registry);
  }

  /** What is counted of a model's requests. */
  of(model: string): ModelMetrics {
    let metrics = this.#models.get(model);
    if (metrics === undefined) {
      metrics = this.#families.of(model);
      this.#models.set(model, metrics);
    }
    return metrics;
  }

  #addEngineGauges(readStats: () => Promise<ModelStats[]>): void {
    const registers = [this.#registry];
    const gauges: [name: string, help: string, read: (stats: EngineStats) => number][] = [
      ["mblm_requests_running", "Sequences that hold a slot.", (s) => s.numRunning],
      ["mblm_requests_waiting", "Sequences that wait for a slot.", (s) => s.numWaiting],
      [
        "mblm_slot_usage_ratio",
        "Part of the slots, and so of the state memory, that is in use, 0–1.",
        (s) => s.numRunning / s.numSlots,
      ],
      ["mblm_slots", "Sequences that can run at the same time.", (s) => s.numSlots],
      ["mblm_state_bytes", "Memory of the state of all slots.", (s) => s.stateBytes],
      ["mblm_prefix_cache_entries", "States in the prefix cache.", (s) => s.prefixCache.numEntries],
      ["mblm_prefix_cache_bytes", "Memory of the prefix cache.", (s) => s.prefixCache.bytes],
      ["mblm_prefix_cache_max_bytes", "Most memory that the prefix cache may take.", (s) => s.prefixCache.maxBytes],
    ];
    for (const [name, help, read] of gauges) {
      new Gauge({
        name,
        help,
        labelNames: ["model"],
        registers,
        async collect() {
          this.reset(); // a model that was unloaded has none
          for (const stats of await readStats()) this.set({ model: stats.model }, read(stats));
        },
      });
    }
    const counters: [name: string, help: string, read: (stats: EngineStats) => number][] = [
      ["mblm_prefix_cache_queries_total", "Prompts looked up in the prefix cache.", (s) => s.prefixCache.numQueries],
      ["mblm_prefix_cache_hits_total", "Prompts with a cached prefix.", (s) => s.prefixCache.numHits],
      ["mblm_prefix_cache_queried_bytes_total", "Bytes of prompts looked up.", (s) => s.prefixCache.queriedBytes],
      ["mblm_prefix_cache_hit_bytes_total", "Bytes of prompts found.", (s) => s.prefixCache.hitBytes],
    ];
    for (const [name, help, read] of counters) {
      new Counter({
        name,
        help,
        labelNames: ["model"],
        registers,
        async collect() {
          this.reset(); // the engine counts
          for (const stats of await readStats()) this.inc({ model: stats.model }, read(stats));
        },
      });
    }
    this.#registry.registerMetric(
      countedElsewhere("mblm_step_duration_seconds", "One call of a stage's graph.", async () =>
        (await readStats()).flatMap(({ model, stepSeconds }) =>
          stepSeconds.map((counts, stage) => ({ labels: { model, stage: String(stage) }, counts })),
        ),
      ),
    );
    this.#registry.registerMetric(
      countedElsewhere("mblm_batch_sequences", "Sequences that one step of decoding served.", async () =>
        (await readStats()).map(({ model, batchSize }) => ({ labels: { model }, counts: batchSize })),
      ),
    );
  }

  /** @param read asked at every scrape; undefined keeps the last value */
  #gauge(name: string, help: string, read: () => number | undefined | Promise<number | undefined>): void {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      async collect() {
        const value = await read();
        if (value !== undefined) this.set(value);
      },
    });
  }

  refused(code: ErrorCode): void {
    this.#refused.inc({ code });
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;

  /** The Prometheus text exposition. */
  async text(): Promise<string> {
    this.#stats = this.readStats();
    this.#sessionStats = this.readSessions();
    const own = await this.#registry.metrics();
    return this.hasVllmNames ? withVllmNames(own) : own;
  }
}
