import { Gauge, type Registry } from "prom-client";
import type { DeviceStats } from "../core/engine-stats.js";

/** What a scrape reads of one model's engine. */
interface Model {
  readonly model: string;
  readonly device?: DeviceStats | undefined;
}

type Value = readonly [labels: Readonly<Record<string, string>>, value: number];

/** Metrics of models that run on a device; on a CPU there are none. */
const METRICS: readonly (readonly [
  name: string,
  help: string,
  labels: readonly string[],
  read: (device: DeviceStats) => readonly Value[],
])[] = [
  [
    "mblm_device_info",
    "1; the label says on what device the model runs.",
    ["device"],
    ({ name }) => [[{ device: name }, 1]],
  ],
  [
    "mblm_device_memory_used_bytes",
    "Memory of the whole device that is in use, whoever uses it.",
    [],
    ({ memory }) => (memory === undefined ? [] : [[{}, memory.totalBytes - memory.freeBytes]]),
  ],
  [
    "mblm_device_memory_free_bytes",
    "Memory of the whole device that is free.",
    [],
    ({ memory }) => (memory === undefined ? [] : [[{}, memory.freeBytes]]),
  ],
  [
    "mblm_device_memory_total_bytes",
    "Memory of the whole device.",
    [],
    ({ memory }) => (memory === undefined ? [] : [[{}, memory.totalBytes]]),
  ],
  [
    "mblm_device_model_bytes",
    "Device memory planned for the model, by what it is for.",
    ["purpose"],
    ({ bytes }) => Object.entries(bytes).map(([purpose, size]): Value => [{ purpose }, size]),
  ],
  [
    "mblm_device_graphs",
    "CUDA graphs that were recorded, so that a batch size is launched as a whole.",
    [],
    ({ numGraphs }) => [[{}, numGraphs]],
  ],
  [
    "mblm_device_graph_recording_seconds",
    "Time that recording the graphs took, at the start.",
    [],
    ({ recordingSeconds }) => [[{}, recordingSeconds]],
  ],
  [
    "mblm_device_fused_rows",
    "Batches of up to so many sequences are run by the stage's fused kernel; 0: none is, or not any more.",
    ["stage"],
    ({ fusedRows }) => fusedRows.map((rows, stage): Value => [{ stage: String(stage) }, rows]),
  ],
];

/** @param readStats of the models that are loaded, asked at every scrape */
export function addDeviceMetrics(registry: Registry, readStats: () => Promise<readonly Model[]>): void {
  for (const [name, help, labels, read] of METRICS) {
    new Gauge({
      name,
      help,
      labelNames: ["model", ...labels],
      registers: [registry],
      async collect() {
        this.reset(); // a model that was unloaded has none
        for (const { model, device } of await readStats()) {
          for (const [own, value] of device === undefined ? [] : read(device)) this.set({ model, ...own }, value);
        }
      },
    });
  }
}
