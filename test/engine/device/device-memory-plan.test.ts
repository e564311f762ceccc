import { describe, expect, it } from "vitest";
import {
  bytesFor,
  type DeviceMemoryNeeds,
  planDeviceMemory,
  RESERVED_BYTES,
} from "../../../src/engine/device/device-memory-plan.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

const needs: DeviceMemoryNeeds = {
  fixed: { weights: 2 * GIB, state: 0, sampling: 0, constraints: 0, workspace: GIB },
  perSlot: { weights: 0, state: 56 * MIB, sampling: 4 * MIB, constraints: 4 * MIB, workspace: 0 },
};
const FIXED = 3 * GIB + RESERVED_BYTES;
const SLOT = 64 * MIB;
const memory = (freeBytes: number) => ({ freeBytes, totalBytes: 24 * GIB });
const slots = (freeBytes: number, requested = 0) => planDeviceMemory(needs, memory(freeBytes), requested).numSlots;

describe("the plan of a device's memory", () => {
  it("has as many slots as fit, at most 256", () => {
    expect(slots(FIXED + SLOT)).toBe(1);
    expect(slots(FIXED + 7 * SLOT - 1)).toBe(6);
    expect(slots(FIXED + 7 * SLOT)).toBe(7);
    expect(slots(FIXED + 1000 * SLOT)).toBe(256);
  });

  it("has the slots that were asked for, where they fit", () => {
    expect(slots(FIXED + 1000 * SLOT, 40)).toBe(40);
    expect(slots(FIXED + 40 * SLOT, 40)).toBe(40);
  });

  it("says what each byte is for", () => {
    const { bytes } = planDeviceMemory(needs, memory(8 * GIB), 10);
    expect(bytes).toEqual({
      weights: 2 * GIB,
      state: 560 * MIB,
      sampling: 40 * MIB,
      constraints: 40 * MIB,
      workspace: GIB,
    });
    expect(bytesFor(needs, 10)).toEqual(bytes);
  });

  it("never plans more than is free", () => {
    for (let free = FIXED + SLOT; free < FIXED + 300 * SLOT; free += 77 * MIB) {
      const { bytes } = planDeviceMemory(needs, memory(free), 0);
      expect(Object.values(bytes).reduce((a, b) => a + b, 0) + RESERVED_BYTES).toBeLessThanOrEqual(free);
    }
  });

  it("refuses a model that is too large, with the figures", () => {
    expect(() => slots(FIXED + SLOT - 1)).toThrow(
      "the model needs 3.3 GiB (weights 2.0 GiB, state 56 MiB, sampling 4 MiB, constraints 4 MiB, workspace 1.0 GiB, driver 256 MiB); " +
        "3.3 GiB of the GPU's 24.0 GiB are free",
    );
    expect(() => slots(GIB)).toThrow(expect.objectContaining({ code: "runtime_unavailable" }));
  });

  it("refuses more slots than fit, and says how many do", () => {
    expect(() => slots(6 * GIB, 100)).toThrow(
      "slots: 100 sequences need 9.5 GiB (weights 2.0 GiB, state 5.5 GiB, sampling 400 MiB, constraints 400 MiB, workspace 1.0 GiB, driver 256 MiB); " +
        "6.0 GiB of the GPU's 24.0 GiB are free: at most 44 fit",
    );
    expect(() => slots(6 * GIB, 100)).toThrow(expect.objectContaining({ code: "config_invalid" }));
    expect(slots(6 * GIB, 44)).toBe(44);
  });

  it("refuses more slots than graphs are made for", () => {
    expect(() => slots(1000 * GIB, 257)).toThrow("slots: 257 is more than 256");
  });

  it("takes a model that needs nothing for a sequence", () => {
    const free = { ...needs, perSlot: { weights: 0, state: 0, sampling: 0, constraints: 0, workspace: 0 } };
    expect(planDeviceMemory(free, memory(4 * GIB), 0).numSlots).toBe(256);
  });
});
