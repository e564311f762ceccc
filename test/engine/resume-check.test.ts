import { describe, expect, it } from "vitest";
import type { SequenceState } from "../../src/core/state-snapshot.js";
import { loadTestBundle, openRunner, randomIds } from "../test-bundles.js";
import { EngineHarness, runAlone } from "./engine-harness.js";
import { makeRequest } from "./requests.js";

const BUNDLES = ["mamba2", "transformer", "transformer-transformer", "mamba2-transformer-transformer", "gru-mix"];

describe.each(BUNDLES)("of the states of %s, the engine takes only those it can go on from", (name) => {
  it("with every array as long as the sequence makes it", async () => {
    const { manifest, info } = await loadTestBundle(name);
    const runner = await openRunner(name, 1);
    try {
      const harness = new EngineHarness(runner);
      const accepts = (state: SequenceState): boolean => {
        try {
          harness.submit(makeRequest({ prompt: "x", stop: { maxNewBytes: 0 }, more: { resume: state } }));
          return true;
        } catch (thrown) {
          expect(thrown).toMatchObject({ code: "invalid_request", message: expect.stringContaining("does not fit") });
          return false;
        }
      };
      const prompt = randomIds(6, 2 * manifest.architecture.bytes_per_step[0]! + runner.patchLength + 1);
      const fed = await runAlone(
        runner,
        makeRequest({ prompt, stop: { maxNewBytes: 0 }, more: { returnState: true } }),
      );
      const { state } = fed.last as unknown as { state: SequenceState };
      const { snapshot, tail } = state;
      expect(accepts(state)).toBe(true);

      // A cache with fewer positions than there are would be filled up by what was in the slot before.
      for (const [i, tensors] of snapshot.stages.entries()) {
        for (const [k, tensor] of tensors.entries()) {
          const { shape, reset } = manifest.stages[i]!.states[k]!;
          const lengths = reset === "none" ? [tensor.length - shape[0]! * shape[2]!, shape[0]! * shape[2]!] : [];
          for (const length of [tensor.length - 1, tensor.length + 1, 0, ...lengths]) {
            if (length === tensor.length) continue;
            const stages = snapshot.stages.with(i, tensors.with(k, new Float32Array(length)));
            expect(accepts({ ...state, snapshot: { ...snapshot, stages } }), `${i} ${k} ${length}`).toBe(false);
          }
        }
      }
      const local = manifest.stages.length - 1;
      const isCached = manifest.stages[Math.max(0, local - 1)]!.states.some(({ reset }) => reset === "none");
      const length = snapshot.length - runner.patchLength;
      expect(accepts({ ...state, snapshot: { ...snapshot, length, crossedAt: length } })).toBe(!isCached);

      // Nothing to choose the next id from, or two things.
      const logits = new Float32Array(info.vocabularySize);
      const none = new Uint16Array();
      expect(accepts({ ...state, tail: none })).toBe(false);
      expect(accepts({ ...state, tail, logits })).toBe(false);
      expect(accepts({ ...state, tail: none, logits })).toBe(local === 0);
      expect(accepts({ ...state, tail: none, logits: logits.subarray(1) })).toBe(false);
      expect(accepts({ ...state, tail: none, logits: logits.with(3, Number.NaN) })).toBe(false);
      expect(accepts({ ...state, seen: state.seen.subarray(1) })).toBe(false);
      await harness.runToEnd();
    } finally {
      runner.dispose();
    }
  });
});
