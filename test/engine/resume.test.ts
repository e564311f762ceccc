import { describe, expect, it } from "vitest";
import { type SequenceState, stateLength } from "../../src/core/state-snapshot.js";
import { EngineHarness } from "./engine-harness.js";
import { FakeRunner, fakeLogits } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";

/** A session by definition: all its ids, and greedy bytes after them. */
class Oracle {
  constructor(readonly ids: number[] = []) {}

  generate(count: number): number[] {
    const start = this.ids.length;
    for (let i = 0; i < count; i++) {
      const logits = fakeLogits(this.ids);
      this.ids.push(logits.indexOf(Math.max(...logits)));
    }
    return this.ids.slice(start);
  }
}

interface Session {
  state: SequenceState | undefined;
  readonly oracle: Oracle;
}

async function advance(harness: EngineHarness, session: Session, pushed: number[], count: number): Promise<number[]> {
  const key = harness.submit(
    makeRequest({
      prompt: Uint16Array.from(pushed),
      stop: { maxNewBytes: count },
      more: { returnState: true, ...(session.state ? { resume: session.state } : {}) },
    }),
  );
  await harness.runToEnd();
  const { ids, last } = harness.outputOf(key);
  harness.events.delete(key);
  if (last.type !== "finished") throw new Error(last.type);
  session.state = last.state;
  return ids;
}

describe("sequences that go on from a state", () => {
  it.each([1, 3, 8])(
    "equal the whole sequence: random pushes, generations and forks (patches of %i)",
    async (patchLength) => {
      const random = makeRandom(patchLength);
      const harness = new EngineHarness(new FakeRunner({ patchLength }), { prefixCacheBytes: 100_000 });
      const sessions: Session[] = [{ state: undefined, oracle: new Oracle() }];
      for (let i = 0; i < 400; i++) {
        const session = sessions[random(sessions.length)]!;
        if (random(6) === 0 && sessions.length < 6) {
          sessions.push({ state: session.state, oracle: new Oracle([...session.oracle.ids]) });
          continue;
        }
        const pushed = Array.from({ length: random(3) === 0 ? 0 : random(30) }, () => random(256));
        const count = random(3) === 0 ? 0 : random(20);
        session.oracle.ids.push(...pushed);
        expect(await advance(harness, session, pushed, count)).toEqual(session.oracle.generate(count));
        const length = session.state === undefined ? 0 : stateLength(session.state);
        expect(length).toBe(session.oracle.ids.length);
        if (session.state)
          expect([...session.state.tail]).toEqual(session.oracle.ids.slice(session.state.snapshot.length));
      }
    },
  );

  it("hold what stops hid, and no id that only ended the output", async () => {
    const harness = new EngineHarness(new FakeRunner());
    const greedy = new Oracle([...Buffer.from("hello")]).generate(20);
    const stop = Uint8Array.from(greedy.slice(9, 12));
    const key = harness.submit(
      makeRequest({ stop: { maxNewBytes: 20, stopSequences: [stop] }, more: { returnState: true } }),
    );
    await harness.runToEnd();
    const { ids, last } = harness.outputOf(key);
    expect(ids).toEqual(greedy.slice(0, 9));
    if (last.type !== "finished") throw new Error(last.type);
    expect(stateLength(last.state!)).toBe(5 + 12);

    const ended = harness.submit(
      makeRequest({ stop: { maxNewBytes: 20, stopIds: [greedy[4]!] }, more: { returnState: true } }),
    );
    await harness.runToEnd();
    const { last: end } = harness.outputOf(ended);
    if (end.type !== "finished") throw new Error(end.type);
    expect(stateLength(end.state!)).toBe(5 + greedy.indexOf(greedy[4]!));
  });
});
