import { MOST_SLOTS_ON_DEVICE } from "../../core/slots.js";
import { MblmError } from "../../errors.js";

/**
 * What device memory is for. `state`: states and context vectors; `sampling`: bias, counts and flags of ids; `constraints`: tables
 * of automata, as large as they may be.
 */
export type MemoryPurpose = "weights" | "state" | "sampling" | "constraints" | "workspace";

export type BytesByPurpose = Readonly<Record<MemoryPurpose, number>>;

/** What a model takes of a device's memory, in bytes. */
export interface DeviceMemoryNeeds {
  /** However many sequences run. */
  readonly fixed: BytesByPurpose;
  /** For each sequence more. */
  readonly perSlot: BytesByPurpose;
}

export interface DeviceMemoryPlan {
  /** Sequences that can run at the same time. */
  readonly numSlots: number;
  readonly bytes: BytesByPurpose;
}

export interface DeviceMemorySize {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Left to the driver: code of kernels that are loaded when they first run, and what is lost between allocations. */
export const RESERVED_BYTES = 256 * 2 ** 20;

/**
 * Gives as many slots as were asked for, or as many as fit.
 *
 * @param requested 0 for as many as fit, at most 256
 * @throws MblmError `config_invalid` when more were asked for than fit; `runtime_unavailable` when not even one does
 */
export function planDeviceMemory(
  needs: DeviceMemoryNeeds,
  { freeBytes, totalBytes }: DeviceMemorySize,
  requested: number,
): DeviceMemoryPlan {
  if (requested > MOST_SLOTS_ON_DEVICE) {
    throw new MblmError(
      "config_invalid",
      `slots: ${requested} is more than ${MOST_SLOTS_ON_DEVICE}, the most on a GPU`,
    );
  }
  const most = slotsThatFit(needs, freeBytes - RESERVED_BYTES);
  const free = `${spellBytes(freeBytes)} of the GPU's ${spellBytes(totalBytes)} are free`;
  if (most < 1) {
    throw new MblmError("runtime_unavailable", `the model needs ${spellNeeds(needs, 1)}; ${free}`);
  }
  if (requested > most) {
    const advice = `at most ${most} fit`;
    const needed = `${requested} sequences need ${spellNeeds(needs, requested)}`;
    throw new MblmError("config_invalid", `slots: ${needed}; ${free}: ${advice}`);
  }
  const numSlots = requested === 0 ? Math.min(most, MOST_SLOTS_ON_DEVICE) : requested;
  return { numSlots, bytes: bytesFor(needs, numSlots) };
}

/** Memory for so many slots, by purpose. */
export function bytesFor({ fixed, perSlot }: DeviceMemoryNeeds, numSlots: number): BytesByPurpose {
  const purposes = Object.keys(fixed) as MemoryPurpose[];
  const entries = purposes.map((purpose) => [purpose, fixed[purpose] + numSlots * perSlot[purpose]]);
  return Object.fromEntries(entries) as Record<MemoryPurpose, number>;
}

function slotsThatFit({ fixed, perSlot }: DeviceMemoryNeeds, bytes: number): number {
  return Math.floor((bytes - total(fixed)) / Math.max(1, total(perSlot)));
}

function total(bytes: BytesByPurpose): number {
  return Object.values(bytes).reduce((a, b) => a + b, 0);
}

/** “9.1 GiB (weights 8.2 GiB, state 512 MiB, …)”: with what is left to the driver. */
function spellNeeds(needs: DeviceMemoryNeeds, numSlots: number): string {
  const bytes = bytesFor(needs, numSlots);
  const parts = [...Object.entries(bytes), ["driver", RESERVED_BYTES] as const];
  const spelled = parts.map(([purpose, size]) => `${purpose} ${spellBytes(size)}`);
  return `${spellBytes(total(bytes) + RESERVED_BYTES)} (${spelled.join(", ")})`;
}

function spellBytes(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`;
}
