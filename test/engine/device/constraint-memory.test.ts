import { afterAll, beforeAll, expect, it } from "vitest";
import { compileConstraint } from "../../../src/constraints/compile-constraint.js";
import type { GenerationRequest } from "../../../src/core/generation-request.js";
import { createDeviceRunner, type DeviceModelRunner } from "../../../src/engine/device/device-model-runner.js";
import { LAUNCH_BYTES } from "../../../src/engine/device/limits.js";
import { MblmError } from "../../../src/errors.js";
import type { DeviceMemory } from "../../../src/runtime/device.js";
import { OrtDeviceBackend } from "../../../src/runtime/device-backend.js";
import { HostDevice } from "../../../src/runtime/host-device.js";
import { referenceLibrary } from "../../native-library.js";
import { loadTestBundle } from "../../test-bundles.js";
import { EngineHarness, runAlone } from "../engine-harness.js";
import { makeRequest } from "../requests.js";

/** A device of which others leave the server so much. */
class SmallDevice extends HostDevice {
  room = Number.POSITIVE_INFINITY;
  /** The least room that there was. */
  lowest = Number.POSITIVE_INFINITY;
  /** Whether the room is known before something is put there. */
  tellsRoom = true;

  override memory(): DeviceMemory | undefined {
    return this.tellsRoom ? { freeBytes: this.room, totalBytes: 2 ** 36 } : undefined;
  }

  override allocate(byteLength: number) {
    if (byteLength > this.room) {
      throw new MblmError("runtime_unavailable", `CUDA: allocating ${byteLength} bytes: out of memory`);
    }
    const buffer = super.allocate(byteLength);
    this.room -= byteLength;
    this.lowest = Math.min(this.lowest, this.room);
    const free = (): void => {
      this.room += byteLength;
      buffer.free();
    };
    return { ...buffer, free };
  }
}

const device = new SmallDevice();
let runner: DeviceModelRunner;
beforeAll(async () => {
  const provider = { memory: ["Cpu", 0] as const, configure: () => {}, canCapture: false };
  const backend = new OrtDeviceBackend({ device, provider, opsLibrary: referenceLibrary() });
  const bundle = await loadTestBundle("mamba2-transformer");
  runner = await createDeviceRunner(bundle, { numSlots: 3, backend, kernels: "onnx" });
}, 120_000);
afterAll(() => runner.dispose());

const plain = makeRequest({ prompt: "stream", stop: { maxNewBytes: 60 } });
const constrained = (pattern: string, maxNewBytes = 30): GenerationRequest => {
  const automaton = compileConstraint({ kind: "regex", pattern }, "regex");
  const more = { constraint: { automaton, endsAtMismatch: false } };
  return makeRequest({ prompt: "ab", stop: { maxNewBytes }, more });
};
const LARGE = "[a-zß-ÿĀ-ž]{0,9000}"; // 756 KB of tables
const SMALL = "[0-9]{20,40}";

it.each([
  ["since the driver needs what is left", LAUNCH_BYTES, true],
  ["others having been faster", 0, false],
])(
  "a constraint that the device has no memory for fails alone, %s: streams go on, and so does what has room",
  async (_, kept, tellsRoom) => {
    device.tellsRoom = tellsRoom;
    device.lowest = Number.POSITIVE_INFINITY;
    const alone = { plain: await runAlone(runner, plain), small: await runAlone(runner, constrained(SMALL)) };
    const before = kept + 2 ** 19;
    device.room = before;
    const harness = new EngineHarness(runner);
    const streams = [harness.submit(plain), harness.submit(constrained(SMALL))];
    await harness.engine.step();
    const refused = harness.submit(constrained(LARGE));
    await harness.runToEnd();
    expect(harness.eventsOf(refused)).toEqual([
      { type: "started", promptBytes: 2 },
      {
        type: "failed",
        code: "overloaded",
        message: expect.stringMatching(
          /^The device has no memory left for the \d{6} bytes of the request's constraint; try again later\.$/,
        ),
      },
    ]);
    expect(streams.map((key) => harness.outputOf(key).ids)).toEqual([alone.plain.ids, alone.small.ids]);
    expect(device.room).toBe(before); // nothing is held behind the end
    expect(device.lowest).toBeGreaterThanOrEqual(kept);
    device.room = Number.POSITIVE_INFINITY;
    const again = harness.submit(constrained(LARGE));
    await harness.runToEnd();
    expect(harness.outputOf(again).last).toMatchObject({ type: "finished" });
  },
);

it("never holds more tables than it has slots, however requests come and go", async () => {
  const total = LAUNCH_BYTES + 2 ** 24;
  device.room = device.lowest = total;
  const patterns = Array.from({ length: 12 }, (_, k) => `[ab]{0,${7000 + k}}`);
  const largest = Math.max(...patterns.map((pattern) => tableBytes(constrained(`${pattern}c{2}`))));
  const harness = new EngineHarness(runner);
  for (const pattern of patterns) {
    const keys = [0, 1, 2].map((more) => harness.submit(constrained(`${pattern}c{${more}}`, 100)));
    await harness.engine.step();
    expect(device.room).toBeLessThan(total);
    for (const key of keys) harness.engine.abort(key);
  }
  expect(total - device.lowest).toBeLessThanOrEqual(3 * largest);
  device.room = Number.POSITIVE_INFINITY;
});

function tableBytes({ constraint }: GenerationRequest): number {
  const { distance, next, classes, accepting } = constraint!.automaton;
  return [distance, next, classes, accepting].reduce((sum, { byteLength }) => sum + byteLength, 0);
}
