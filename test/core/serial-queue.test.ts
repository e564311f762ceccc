import { expect, it } from "vitest";
import { SerialQueue } from "../../src/core/serial-queue.js";

it("begins one work when the one before is done, whatever becomes of that", async () => {
  const queue = new SerialQueue();
  const log: string[] = [];
  let finish = (): void => {};
  const first = queue.run(async () => {
    log.push("first begins");
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    log.push("first ends");
    throw new Error("failed");
  });
  const second = queue.run(async () => log.push("second"));
  await new Promise(setImmediate);
  expect(log).toEqual(["first begins"]);
  finish();
  await expect(first).rejects.toThrow("failed");
  await second;
  expect(log).toEqual(["first begins", "first ends", "second"]);
});
