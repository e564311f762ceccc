import { once } from "node:events";
import { PassThrough, Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { MblmError } from "../../src/errors.js";
import { BodyReader, readWhole } from "../../src/feeding/body-reader.js";
import { PieceSize } from "../../src/feeding/piece-size.js";

const NEVER = new AbortController().signal;
const LIMITS = { maxBytes: 1e9, idleSeconds: 0 };
const sequence = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, i) => i % 251));

describe("BodyReader", () => {
  it.each([
    [1, 1],
    [7, 3],
    [100, 100],
    [99, 1000],
    [1000, 99],
  ])("chunks of %i bytes become pieces of %i, the last one shorter", async (chunk, size) => {
    const content = sequence(1000);
    const chunks = Array.from({ length: Math.ceil(1000 / chunk) }, (_, i) =>
      content.subarray(i * chunk, (i + 1) * chunk),
    );
    const reader = new BodyReader(Readable.from(chunks), LIMITS);
    const pieces: Buffer[] = [];
    while (!reader.isAtEnd) pieces.push(Buffer.from(await reader.next(size, NEVER)));
    expect(Buffer.concat(pieces)).toEqual(content);
    for (const piece of pieces.slice(0, -1)) expect(piece.length).toBe(size);
    expect(reader.numBytes).toBe(1000);
    expect((await reader.next(size, NEVER)).length).toBe(0);
  });

  it("passes on what is there when the sender pauses, and takes no more than it is asked for", async () => {
    const stream = new PassThrough({ highWaterMark: 64 });
    const counts: number[] = [];
    const reader = new BodyReader(stream, LIMITS, (count) => counts.push(count));
    stream.write(sequence(10));
    expect((await reader.next(100, NEVER)).length).toBe(10);
    expect(reader.isAtEnd).toBe(false);
    for (let i = 0; i < 10; i++) stream.write(sequence(50));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(reader.numReceived).toBe(10); // nobody has asked
    expect((await reader.next(60, NEVER)).length).toBe(60);
    expect(reader.numReceived).toBeLessThanOrEqual(10 + 2 * 64 + 60);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(reader.numReceived);
  });

  it("says why there is no more", async () => {
    const failure = async (reader: BodyReader, stop = NEVER): Promise<MblmError> =>
      reader.next(1000, stop).then(
        () => expect.fail("it was read"),
        (thrown: unknown) => thrown as MblmError,
      );
    const tooLarge = new BodyReader(Readable.from([sequence(50), sequence(51)]), { ...LIMITS, maxBytes: 100 });
    expect(await failure(tooLarge)).toMatchObject({ code: "body_too_large", field: "body" });
    const silent = new BodyReader(new PassThrough(), { ...LIMITS, idleSeconds: 0.05 });
    expect(await failure(silent)).toMatchObject({ code: "idle_timeout", field: "body" });
    const broken = new PassThrough();
    const reading = failure(new BodyReader(broken, LIMITS));
    broken.destroy(new Error("reset"));
    expect(await reading).toMatchObject({ code: "aborted" });
    const stop = new AbortController();
    const waiting = failure(new BodyReader(new PassThrough(), LIMITS), stop.signal);
    stop.abort(new MblmError("shutting_down", "Over."));
    expect(await waiting).toMatchObject({ code: "shutting_down" });
    expect(await failure(new BodyReader(new PassThrough(), LIMITS), AbortSignal.abort())).toMatchObject({
      code: "aborted",
    });
  });

  it("leaves the rest of the stream to others", async () => {
    const stream = Readable.from([sequence(10), sequence(20), sequence(30)]);
    const reader = new BodyReader(stream, LIMITS);
    await reader.next(5, NEVER);
    reader.close();
    let left = 0;
    stream.on("data", (chunk: Buffer) => {
      left += chunk.length;
    });
    await once(stream, "end");
    expect(left).toBe(50);
  });

  it("reads whole bodies within a bound", async () => {
    expect(await readWhole(Readable.from([sequence(70_000), sequence(3)]), 70_003)).toHaveLength(70_003);
    await expect(readWhole(Readable.from([sequence(70_000), sequence(3)]), 70_002)).rejects.toMatchObject({
      code: "body_too_large",
    });
  });
});

describe("PieceSize", () => {
  /** The size that a model of this speed comes to. */
  const settle = (bytesPerSecond: number): number => {
    const size = new PieceSize();
    for (let i = 0; i < 20; i++) size.observe(size.bytes, size.bytes / bytesPerSecond);
    return size.bytes;
  };

  it("is what a model reads in a tenth of a second to a half, within bounds", () => {
    for (const rate of [20_000, 100_000, 1_000_000, 5_000_000]) {
      expect(settle(rate) / rate).toBeGreaterThanOrEqual(0.1);
      expect(settle(rate) / rate).toBeLessThanOrEqual(0.5);
    }
    expect(settle(100)).toBe(4096);
    expect(settle(1e9)).toBe(1 << 20);
  });

  it("learns nothing from a short piece that was quick", () => {
    const size = new PieceSize();
    size.observe(10, 0.001);
    expect(size.bytes).toBe(65_536);
  });
});
