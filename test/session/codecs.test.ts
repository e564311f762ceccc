import { describe, expect, it } from "vitest";
import { decodeRecord, encodeRecord } from "../../src/session/record-codec.js";
import { newRecord, type SessionRecord } from "../../src/session/session.js";
import { decodeState, encodeState } from "../../src/session/state-codec.js";
import { state } from "./states.js";

describe("a state as bytes", () => {
  it("comes back bit for bit, wherever it lies in memory", () => {
    const { tail, ...others } = state(300);
    const ended = { ...others, tail: new Uint16Array(), logits: Float32Array.of(0.1, -2) };
    for (const original of [{ ...others, tail }, ended]) {
      const bytes = encodeState(original);
      for (const shift of [0, 1, 2, 3]) {
        const moved = Buffer.concat([Buffer.alloc(shift), bytes]).subarray(shift);
        expect(decodeState(moved)).toEqual(original);
      }
    }
  });

  it("is refused whichever of its bytes is changed", () => {
    const bytes = encodeState(state(3, 2));
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i]! ^= 0x10;
      expect(() => decodeState(changed), `byte ${i}`).toThrow("snapshot: ");
    }
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeState(bytes.subarray(0, length))).toThrow("snapshot: ");
    }
  });
});

const RECORD: SessionRecord = {
  createdSeconds: 1234,
  state: state(5, 2),
  progress: {
    frames: 7,
    bytesSaid: 1000,
    messagesSaid: 3,
    bytes: Uint8Array.of(1, 2, 3),
    messages: [
      { at: 998, text: '{"type":"finished"}' },
      { at: 1000, text: '{"type":"saved","session_id":"ä"}' },
    ],
    partial: { request: '{"max_tokens":5}', seed: 2n ** 64n - 1n, ids: Uint16Array.of(1, 65535), promptBytes: 9 },
  },
};

describe("a session as bytes", () => {
  it.each([
    ["new", newRecord(99)],
    ["with a state", newRecord(99, state(3))],
    ["in the middle of a generation", RECORD],
    ["of which nothing was kept", { ...RECORD, state: undefined }],
  ])("comes back whole: %s", (_, record) => {
    for (const shift of [0, 1, 2, 3]) {
      const moved = Buffer.concat([Buffer.alloc(shift), encodeRecord(record)]).subarray(shift);
      expect(decodeRecord(moved)).toEqual(record);
    }
  });

  it("is refused whichever of its bytes is changed or missing", () => {
    const bytes = encodeRecord(RECORD);
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i]! ^= 0x10;
      expect(() => decodeRecord(changed), `byte ${i}`).toThrow(/^(session_id|snapshot): /);
    }
    const block = encodeRecord({ ...RECORD, state: undefined }).length;
    for (let length = 0; length < bytes.length; length++) {
      // Cut right behind its first block, it is a session to which nothing was said.
      if (length === block) continue;
      expect(() => decodeRecord(bytes.subarray(0, length))).toThrow(/^(session_id|snapshot): /);
    }
  });
});
