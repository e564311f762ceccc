import type { Bundle } from "../../bundle/bundle.js";
import { MOST_SLOTS_ON_DEVICE } from "../../core/slots.js";
import type { DeviceMemory } from "../../runtime/device.js";
import { bucketOf, bucketsFor } from "./buckets.js";
import { deviceMemoryNeeds } from "./device-memory-needs.js";
import { type DeviceMemoryPlan, planDeviceMemory } from "./device-memory-plan.js";
import { DEVICE_PREFILL_STEPS, MAX_SCORING_ROWS } from "./limits.js";

/** Where the device's memory is no matter of its own. */
const UNLIMITED: DeviceMemory = { freeBytes: Infinity, totalBytes: Infinity };

/**
 * How many sequences a model can run at a time on a device.
 *
 * @param requested 0: as many as fit
 * @throws MblmError `config_invalid` or `runtime_unavailable` with the figures when they do not fit
 */
export function planSlots({ manifest }: Bundle, memory: DeviceMemory | undefined, requested: number): DeviceMemoryPlan {
  const mostSlots = requested || MOST_SLOTS_ON_DEVICE;
  const numBatchGraphs = bucketsFor(mostSlots).length * (manifest.stages.length - 1);
  const needs = deviceMemoryNeeds(manifest, manifest.cuda!, {
    maxPrefillSteps: DEVICE_PREFILL_STEPS,
    numScoringRows: MAX_SCORING_ROWS,
    maxRows: bucketOf(mostSlots),
    numGraphs: numBatchGraphs + bucketsFor(Math.max(mostSlots, MAX_SCORING_ROWS)).length,
  });
  return planDeviceMemory(needs, memory ?? UNLIMITED, requested);
}
