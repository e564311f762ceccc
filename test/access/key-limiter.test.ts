import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { KeyLimiter } from "../../src/access/key-limiter.js";

const never = new AbortController().signal;

describe("work of a key that has begun", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const seconds = (): number => Date.now() / 1000;

  it("waits for a place in its turn, before what comes later", async () => {
    const limiter = new KeyLimiter({ concurrency: 2 }, seconds);
    const places = [limiter.enter(), limiter.enter()];
    const order: number[] = [];
    const inTurn = [0, 1].map(async (i) => {
      const leave = await limiter.enterInTurn(never);
      order.push(i);
      return leave;
    });
    places[0]!();
    expect(() => limiter.enter()).toThrow("limited to 2 sequences at a time");
    await inTurn[0];
    expect(order).toEqual([0]);
    places[1]!();
    (await inTurn[1])!();
    expect(order).toEqual([0, 1]);
    expect(() => limiter.enter()).not.toThrow();
    expect(() => limiter.enter()).toThrow("limited to 2 sequences at a time");
  });

  it("waits until its bytes are paid for", async () => {
    const limiter = new KeyLimiter({ bytesPerSecond: 10 }, seconds);
    limiter.takeBytes(50); // ten were there
    expect(() => limiter.enter()).toThrow("limited to 10 bytes a second");
    let hasEntered = false;
    const entered = limiter.enterInTurn(never).then(() => {
      hasEntered = true;
    });
    await vi.advanceTimersByTimeAsync(3900);
    expect(hasEntered).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    await entered;
  });

  it("stops waiting when it is told to, and lets the next one go on", async () => {
    const limiter = new KeyLimiter({ concurrency: 1 }, seconds);
    const leave = limiter.enter();
    const controller = new AbortController();
    const first = limiter.enterInTurn(controller.signal);
    const second = limiter.enterInTurn(never);
    controller.abort();
    (await first)();
    leave();
    (await second)();
    expect(() => limiter.enter()).not.toThrow();
  });

  it("is refused at once where it could wait for ever", () => {
    const limiter = new KeyLimiter({ concurrency: 2 }, seconds);
    expect(() => limiter.requirePlaces(2)).not.toThrow();
    expect(() => limiter.requirePlaces(3)).toThrow(expect.objectContaining({ code: "invalid_request" }));
    expect(() => new KeyLimiter({}, seconds).requirePlaces(1000)).not.toThrow();
  });
});
