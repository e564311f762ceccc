import type { SequenceState } from "../../src/core/state-snapshot.js";

export const MODEL = { id: "m", bundleDigest: "d" };

/** A state of a sequence of `length` ids, about `8 × size` bytes. */
export function state(length: number, size = 100): SequenceState {
  const snapshot = {
    length: length - 1,
    crossedAt: length - 1,
    recent: Uint16Array.of(1, 65535),
    contexts: [Float32Array.of(1.5, -0, Number.NaN)],
    stages: [[new Float32Array(size).fill(length), new Float32Array(size)], [Float32Array.of(Infinity)]],
  };
  return { model: MODEL, snapshot, tail: Uint16Array.of(length), seen: Uint8Array.of(0, 1, 1) };
}
