import { describe, expect, it } from "vitest";
import type { SequenceEvent } from "../../src/engine/event-outbox.js";
import { decodeEvents, encodeEvents } from "../../src/worker/event-codec.js";

/** What arrives on the other side of a thread's border. */
function arrived(events: readonly SequenceEvent[]): SequenceEvent[] {
  const received: SequenceEvent[] = [];
  decodeEvents(structuredClone(encodeEvents(events)), (key, event) => received.push({ key, event }));
  return received;
}

const bytes = (key: number, ...ids: number[]): SequenceEvent => ({
  key,
  event: { type: "bytes", ids: Uint16Array.from(ids) },
});
const started = (key: number): SequenceEvent => ({ key, event: { type: "started", promptBytes: 1 } });
const scored: SequenceEvent = {
  key: 5,
  event: { type: "bytes", ids: Uint16Array.of(7), logprobs: [{ logprob: -1, top: [] }] },
};

describe("event codec", () => {
  it.each<[string, SequenceEvent[]]>([
    ["none", []],
    [
      "bytes of several sequences, special ids and none at all",
      [bytes(0, 1, 2, 3), bytes(1), bytes(0, 65_535, 0, 256)],
    ],
    ["bytes around what has log-probs", [bytes(4, 1), scored, bytes(4, 2), bytes(5, 3)]],
    ["bytes around other events", [started(1), bytes(2, 9), started(3), started(4), bytes(1, 8), started(5)]],
    [
      "keys of all sizes",
      [65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER].map((key) => bytes(key, 1, 2)),
    ],
  ])("hands out the same events in the same order: %s", (_, events) => {
    expect(arrived(events)).toEqual(events);
  });

  it("carries the bytes of a turn as one array, whatever else the turn brings before and after", () => {
    const turn = Array.from({ length: 64 }, (_, i) => bytes(i, 1, 2, 3));
    const kinds = encodeEvents([started(64), ...turn, scored]).map((message) => message instanceof Uint16Array);
    expect(kinds).toEqual([false, true, false]);
  });
});
