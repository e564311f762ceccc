import { Registry } from "prom-client";
import { describe, expect, it } from "vitest";
import type { DeviceStats } from "../../src/core/engine-stats.js";
import { addDeviceMetrics } from "../../src/metrics/device-metrics.js";

const device: DeviceStats = {
  name: "NVIDIA H100",
  memory: { freeBytes: 30, totalBytes: 80 },
  bytes: { weights: 5, state: 7 },
  numGraphs: 9,
  recordingSeconds: 1.5,
  fusedRows: [8, 4],
};

/** The samples of one scrape. */
async function scrape(stats: readonly { model: string; device?: DeviceStats }[]): Promise<string[]> {
  const registry = new Registry();
  addDeviceMetrics(registry, async () => stats);
  return (await registry.metrics()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

describe("the metrics of devices", () => {
  it("say where each model runs and what it takes", async () => {
    expect(await scrape([{ model: "a", device }])).toEqual([
      'mblm_device_info{model="a",device="NVIDIA H100"} 1',
      'mblm_device_memory_used_bytes{model="a"} 50',
      'mblm_device_memory_free_bytes{model="a"} 30',
      'mblm_device_memory_total_bytes{model="a"} 80',
      'mblm_device_model_bytes{model="a",purpose="weights"} 5',
      'mblm_device_model_bytes{model="a",purpose="state"} 7',
      'mblm_device_graphs{model="a"} 9',
      'mblm_device_graph_recording_seconds{model="a"} 1.5',
      'mblm_device_fused_rows{model="a",stage="0"} 8',
      'mblm_device_fused_rows{model="a",stage="1"} 4',
    ]);
  });

  it("leave out models on a CPU, and memory that is no matter of its own", async () => {
    const samples = await scrape([{ model: "on-cpu" }, { model: "b", device: { ...device, memory: undefined } }]);
    expect(samples.filter((line) => line.includes("on-cpu"))).toEqual([]);
    expect(samples.filter((line) => line.includes("memory"))).toEqual([]);
    expect(samples).toContain('mblm_device_graphs{model="b"} 9');
  });

  it("end with the model", async () => {
    const registry = new Registry();
    let stats = [{ model: "a", device }];
    addDeviceMetrics(registry, async () => stats);
    expect(await registry.metrics()).toContain('model="a"');
    stats = [];
    expect(await registry.metrics()).not.toContain('model="a"');
  });
});
