import { describe, expect, it } from "vitest";
import { ConstraintCompiler } from "../../src/constraints/constraint-compiler.js";
import type { GenerationEvent } from "../../src/core/generation-event.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import { stateLength } from "../../src/core/state-snapshot.js";
import { EngineHarness } from "./engine-harness.js";
import { FakeRunner } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";

const compiler = new ConstraintCompiler(8, 1 << 20);
const digits = compiler.compile({ kind: "regex", pattern: "([0-9]{1,3},){40,}" }, "regex");

/** Requests in which everything that an interruption could disturb takes part. */
function randomRequest(random: (bound: number) => number): GenerationRequest {
  const isConstrained = random(3) === 0;
  return makeRequest({
    prompt: Uint16Array.from({ length: random(12) + 1 }, () => random(256)),
    sampling: {
      temperature: random(2) === 0 ? 0 : 1.3,
      topK: random(2) * 40,
      repetitionPenalty: random(2) === 0 ? 1 : 1.7,
      frequencyPenalty: random(2) * 0.5,
      presencePenalty: random(2) * 0.3,
      seed: BigInt(random(1000)),
    },
    stop: {
      maxNewBytes: isConstrained ? 300 : 20 + random(200),
      minNewBytes: random(2) * 10,
      stopSequences: Array.from({ length: random(4) }, () =>
        Uint8Array.from({ length: 1 + random(2) }, () => random(256)),
      ),
    },
    more: {
      returnState: true,
      ...(isConstrained ? { constraint: { automaton: digits, endsAtMismatch: true } } : {}),
    },
  });
}

const idsOf = (events: readonly GenerationEvent[]): number[] =>
  events.flatMap((event) => (event.type === "bytes" ? [...event.ids] : []));

describe("a generation that is interrupted and continued", () => {
  it.each([1, 3, 8])("equals one that is not (patches of %i)", async (patchLength) => {
    const random = makeRandom(50 + patchLength);
    const harness = new EngineHarness(new FakeRunner({ patchLength, numSlots: 3 }));
    let numInterruptions = 0;
    for (let round = 0; round < 60; round++) {
      const request = randomRequest(random);
      const whole = harness.submit(request);
      await harness.runToEnd();
      const expected = harness.outputOf(whole);

      const shown: number[] = [];
      let next: GenerationRequest = request;
      let generated: number[] = [];
      for (;;) {
        const key = harness.submit(next);
        const limit = 1 + random(6);
        for (let steps = 0; steps < limit && harness.engine.hasWork; steps++) await harness.engine.step();
        harness.engine.abort(key);
        await harness.runToEnd();
        const { ids, last } = harness.outputOf(key);
        if (last.type !== "finished") throw new Error(last.type);
        if (last.reason !== "abort") {
          shown.push(...ids);
          if (expected.last.type !== "finished") throw new Error(expected.last.type);
          expect({ reason: last.reason, stop: last.matchedStop }).toEqual({
            reason: expected.last.reason,
            stop: expected.last.matchedStop,
          });
          expect(stateLength(last.state!)).toBe(stateLength(expected.last.state!));
          expect(generated.length + last.usage.generatedBytes).toBe(expected.last.usage.generatedBytes);
          break;
        }
        numInterruptions++;
        // What had been held back is handed out by an abort, and again by what goes on.
        const numNew = last.usage.generatedBytes;
        generated = [...generated, ...ids.slice(ids.length - numNew)];
        shown.push(...ids.slice(0, ids.length - last.numHeld!));
        if (last.state === undefined) continue;
        next = {
          ...request,
          prompt: new Uint16Array(),
          resume: last.state,
          continues: Uint16Array.from(generated),
        };
      }
      expect(shown).toEqual(expected.ids);
    }
    expect(numInterruptions).toBeGreaterThan(60);
  });

  it.each([1, 3, 8])("can go on from any checkpoint (patches of %i)", async (patchLength) => {
    const random = makeRandom(90 + patchLength);
    const harness = new EngineHarness(new FakeRunner({ patchLength, numSlots: 3 }));
    let numCheckpoints = 0;
    for (let round = 0; round < 40; round++) {
      const request = { ...randomRequest(random), checkpointEvery: 1 + random(40) };
      const key = harness.submit(request);
      await harness.runToEnd();
      const events = harness.eventsOf(key);
      const expected = harness.outputOf(key);
      for (const [i, event] of events.entries()) {
        if (event.type !== "checkpoint") continue;
        numCheckpoints++;
        const before = idsOf(events.slice(0, i));
        const rest = harness.submit({
          ...request,
          prompt: new Uint16Array(),
          resume: event.state,
          continues: Uint16Array.from([...before, ...event.held]),
        });
        await harness.runToEnd();
        expect([...before, ...harness.outputOf(rest).ids]).toEqual(expected.ids);
      }
    }
    expect(numCheckpoints).toBeGreaterThan(40);
  });
});
