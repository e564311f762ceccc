import { afterAll, describe, expect, it } from "vitest";
import { InputBlocks } from "../../../src/engine/device/input-blocks.js";
import type { Device } from "../../../src/runtime/device.js";
import { openHostDeviceBackend } from "../../../src/runtime/host-device-backend.js";
import { referenceLibrary } from "../../native-library.js";

const backend = openHostDeviceBackend(referenceLibrary());
afterAll(() => backend.dispose());

/** The host as a device that counts what is copied to it. */
function counting(uploads: number[]): Device {
  const { device } = backend;
  return new Proxy(device, {
    get(target, name) {
      if (name !== "upload") return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
      return (address: bigint, data: ArrayBufferView) => {
        uploads.push(data.byteLength);
        device.upload(address, data);
      };
    },
  });
}

describe("inputs of a run", () => {
  const uploads: number[] = [];
  const blocks = new InputBlocks(counting(uploads), { ids: 10, place: 3, row: 4 });
  blocks.values.ids.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  blocks.values.place.set([11, 12, 13]);
  blocks.values.row.set([14, 0, 15, 0]);
  afterAll(() => blocks.dispose());

  it.each([
    { ids: 10, place: 3, row: 4 },
    { ids: 5, place: 1, row: 2 },
    { ids: 1, place: 0, row: 4 },
  ])("go up in one copy, and are where their ports say: %o", (counts) => {
    uploads.length = 0;
    blocks.send(counts);
    expect(uploads).toHaveLength(1);
    for (const name of ["ids", "place", "row"] as const) {
      const { address } = blocks.port(counts, name, counts[name]);
      expect(address % 16n).toBe(0n);
      const found = new Int32Array(counts[name]);
      if (found.length > 0) backend.device.download(address, found);
      expect(found).toEqual(blocks.values[name].subarray(0, counts[name]));
    }
  });

  it("may be int64", () => {
    const counts = { ids: 1, place: 1, row: 4 };
    blocks.send(counts);
    const port = blocks.portOfInt64(counts, "row", 2);
    expect(port).toMatchObject({ element: "int64", shape: [2] });
    const found = new BigInt64Array(2);
    backend.device.download(port.address, found);
    expect([...found]).toEqual([14n, 15n]);
  });
});
