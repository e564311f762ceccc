import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { MblmError } from "../../src/errors.js";
import { ImageDecoder } from "../../src/vqa/image-decoder.js";

const file = readFileSync(fileURLToPath(new URL("../.images/gamma.png", import.meta.url)));
const NEVER = new AbortController().signal;

describe("images that are decoded at the same time", () => {
  it("are few; others wait, and more are refused", async () => {
    const decoder = await ImageDecoder.open({ maxPixels: 1e6, maxConcurrent: 2, maxWaiting: 2 });
    const order: number[] = [];
    let inside = 0;
    let most = 0;
    const results = await Promise.allSettled(
      [0, 1, 2, 3, 4].map((i) =>
        decoder.decode(file, NEVER, async () => {
          most = Math.max(most, ++inside);
          await new Promise((resolve) => setTimeout(resolve, 5));
          inside--;
          order.push(i);
        }),
      ),
    );
    expect(most).toBe(2);
    expect(order.toSorted()).toEqual([0, 1, 2, 3]);
    expect(results[4]).toMatchObject({ status: "rejected", reason: { code: "overloaded" } });
    await expect(decoder.decode(file, NEVER, async ({ format }) => format)).resolves.toBe("png");
  });

  it("are waited for no longer when their time is over, and keep their places until they are done", async () => {
    const decoder = await ImageDecoder.open({ maxPixels: 1e6, maxConcurrent: 1, maxWaiting: 2 });
    const controller = new AbortController();
    let leave: (() => void) | undefined;
    const late = decoder.decode(file, controller.signal, () => new Promise<void>((resolve) => (leave = resolve)));
    await expect.poll(() => leave).toBeDefined();
    let isDone = false;
    const next = decoder.decode(file, NEVER, async () => (isDone = true));
    const reason = new MblmError("deadline_exceeded", "The time is over.");
    controller.abort(reason);
    await expect(late).rejects.toBe(reason);
    await expect(decoder.decode(file, controller.signal, async () => "used")).rejects.toBe(reason);
    expect(isDone).toBe(false);
    leave!();
    await expect(next).resolves.toBe(true);
  });

  it("are not used any more when their time is over once they are decoded", async () => {
    const decoder = await ImageDecoder.open({ maxPixels: 1e6, maxConcurrent: 1, maxWaiting: 2 });
    const controller = new AbortController();
    let isUsed = false;
    const stopped = decoder.decode(file, controller.signal, async () => (isUsed = true));
    await Promise.resolve(); // it has begun
    controller.abort();
    await expect(stopped).rejects.toMatchObject({ code: "aborted" });
    await decoder.decode(file, NEVER, async () => {});
    expect(isUsed).toBe(false);
  });

  it("do not wait for those whose clients have gone", async () => {
    const decoder = await ImageDecoder.open({ maxPixels: 1e6, maxConcurrent: 1, maxWaiting: 2 });
    const controller = new AbortController();
    let leave: (() => void) | undefined;
    const first = decoder.decode(file, NEVER, () => new Promise<void>((resolve) => (leave = resolve)));
    const gone = decoder.decode(file, controller.signal, async () => "decoded");
    const third = decoder.decode(file, NEVER, async () => "decoded");
    controller.abort();
    await expect(gone).rejects.toMatchObject({ code: "aborted" });
    await expect.poll(() => leave).toBeDefined();
    leave!();
    await first;
    await expect(third).resolves.toBe("decoded");
  });
});
