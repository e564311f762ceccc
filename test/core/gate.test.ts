import { expect, it } from "vitest";
import { Gate } from "../../src/core/gate.js";

const never = new AbortController().signal;

it("lets in so many at a time, in order, whatever becomes of them", async () => {
  const gate = new Gate(2, 100);
  const order: number[] = [];
  let numInside = 0;
  const work = (i: number) => async (): Promise<void> => {
    order.push(i);
    expect(++numInside).toBeLessThanOrEqual(2);
    await new Promise((resolve) => setTimeout(resolve, i % 3));
    numInside--;
    if (i % 4 === 0) throw new Error("failed");
  };
  await Promise.allSettled(Array.from({ length: 20 }, (_, i) => gate.pass(never, work(i))));
  expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
});

it("refuses who would wait behind too many", async () => {
  const gate = new Gate(1, 1);
  let leave = (): void => {};
  const inside = gate.pass(never, () => new Promise<void>((resolve) => (leave = resolve)));
  const waiting = gate.pass(never, async () => "in");
  await expect(gate.pass(never, async () => {})).rejects.toMatchObject({ code: "overloaded" });
  const begun = gate.pass(never, async () => "in, too", true);
  leave();
  await inside;
  expect(await waiting).toBe("in");
  expect(await begun).toBe("in, too");
});

it("lets go of who stops waiting, without giving them anybody's place", async () => {
  const gate = new Gate(1, 10);
  let leave = (): void => {};
  const inside = gate.pass(never, () => new Promise<void>((resolve) => (leave = resolve)));
  const controller = new AbortController();
  const stopped = gate.pass(controller.signal, async () => "stopped");
  let isIn = false;
  const waiting = gate.pass(never, async () => {
    isIn = true;
  });
  controller.abort();
  expect(await stopped).toBe("stopped");
  expect(isIn).toBe(false);
  leave();
  await Promise.all([inside, waiting]);
  expect(isIn).toBe(true);
});
