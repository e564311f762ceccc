import { expect } from "vitest";
import { type ByteAutomaton, NO_STATE } from "../../src/core/byte-automaton.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import { type SequenceState, stateLength } from "../../src/core/state-snapshot.js";
import type { ModelRunner, PatchRunner } from "../../src/engine/model-runner-interface.js";
import { randomIds } from "../test-bundles.js";
import { type Output, runAlone } from "./engine-harness.js";
import { makeRequest } from "./requests.js";

/** A way to let an output end behind `n` ids of a greedy one; undefined where that is not possible. */
type End = (greedy: readonly number[], n: number, runner: ModelRunner | PatchRunner) => Ending | undefined;

interface Ending {
  readonly stop: Partial<GenerationRequest["stop"]>;
  readonly logitBias?: ReadonlyMap<number, number>;
  readonly constraint?: GenerationRequest["constraint"];
  /** An id that follows the `n` and is part of the sequence. */
  readonly last?: number;
}

/** More ids than any end here leaves. */
const MOST = 50;

/** A byte that is not among the first `count` ids. */
const otherThan = (greedy: readonly number[], count: number): number =>
  Array.from({ length: 256 }, (_, id) => id).find((id) => !greedy.slice(0, count).includes(id))!;

/** An id that is banned for `n` ids and then the likeliest by far. */
const sampledAfter = (id: number, n: number) => ({
  minNewBytes: n,
  maxNewBytes: MOST,
  id,
  bias: new Map([[id, 1000]]),
});

/** Matches the ids one after the other; `optional` more of them at the end may be missing. */
function literal(ids: readonly number[], optional: number): ByteAutomaton {
  const numStates = ids.length + 1;
  const next = new Uint16Array(numStates * 256).fill(NO_STATE);
  for (const [state, id] of ids.entries()) next[state * 256 + id] = state + 1;
  return {
    numStates,
    numClasses: 256,
    classes: Uint8Array.from({ length: 256 }, (_, id) => id),
    next,
    accepting: Uint8Array.from({ length: numStates }, (_, state) => (state >= ids.length - optional ? 1 : 0)),
    distance: Uint32Array.from({ length: numStates }, (_, state) => Math.max(0, ids.length - optional - state)),
  };
}

const ENDS: Readonly<Record<string, End>> = {
  "the length limit": (_, n) => ({ stop: { maxNewBytes: n } }),
  "a stop id": (greedy, n) => {
    const { id, bias: logitBias, ...stop } = sampledAfter(otherThan(greedy, n), n);
    return { stop: { ...stop, stopIds: [id] }, logitBias };
  },
  "a stop id that is shown": (greedy, n) => {
    const { id, bias: logitBias, ...stop } = sampledAfter(otherThan(greedy, n), n);
    return { stop: { ...stop, stopIds: [id], includeStop: true }, logitBias, last: id };
  },
  "the model's end id": (greedy, n, { info: { eosId } }) => {
    if (eosId === undefined || greedy.slice(0, n).includes(eosId)) return undefined;
    const { id: _, bias: logitBias, ...stop } = sampledAfter(eosId, n);
    return { stop: { ...stop, ignoreEos: false }, logitBias };
  },
  "a stop sequence": (greedy, n) => {
    const stop = greedy.slice(Math.max(0, n - 2), n);
    if (n === 0 || stop.some((id) => id > 255)) return undefined;
    return { stop: { minNewBytes: n, maxNewBytes: MOST, stopSequences: [Uint8Array.from(stop)] } };
  },
  "a whole match": (greedy, n) => {
    if (n === 0 || greedy.slice(0, n).some((id) => id > 255)) return undefined;
    const automaton = literal(greedy.slice(0, n), 0);
    return { stop: { maxNewBytes: MOST }, constraint: { automaton, endsAtMismatch: true } };
  },
  "an id that fits no match": (greedy, n) => {
    if (greedy.slice(0, n).some((id) => id > 255)) return undefined;
    const automaton = literal([...greedy.slice(0, n), otherThan(greedy, n + 1)], 1);
    return { stop: { maxNewBytes: MOST }, constraint: { automaton, endsAtMismatch: true } };
  },
};

export interface EveryEndOptions {
  /** Ids of an output, up to which ends are tried. */
  readonly mostGenerated: number;
  /** @param label what was tried */
  readonly compare: (actual: Output, expected: Output, label: string) => void;
}

/**
 * Lets outputs end in every way behind any number of ids, and goes on from their states: without a prompt, with prompts, and
 * with prompts that are scored. Expects what the whole sequence gives. Returns how often that was tried, by the way.
 */
export async function expectResumable(
  runner: ModelRunner | PatchRunner,
  options: EveryEndOptions,
): Promise<Readonly<Record<string, number>>> {
  const numTried = Object.fromEntries(Object.keys(ENDS).map((name) => [name, 0]));
  const oracle = new Oracle(runner);
  for (const promptLength of [0, 1, runner.patchLength + 2]) {
    const prompt = [...randomIds(promptLength + 1, promptLength)];
    const { ids: greedy } = await runAlone(runner, request(prompt, { maxNewBytes: options.mostGenerated + 1 }));
    for (const [name, end] of Object.entries(ENDS)) {
      for (let n = 0; n <= options.mostGenerated; n++) {
        const ending = end(greedy, n, runner);
        if (ending === undefined) continue;
        const whole = [...prompt, ...greedy.slice(0, n), ...(ending.last === undefined ? [] : [ending.last])];
        const label = `${name} after ${promptLength} and ${n} ids`;
        const state = stateOf(await runAlone(runner, endingRequest(prompt, ending)));
        expect(state === undefined ? 0 : stateLength(state), label).toBe(whole.length);
        if (state === undefined) continue;
        await expectGoesOn(runner, state, whole, oracle, (actual, expected) =>
          options.compare(actual, expected, label),
        );
        numTried[name]!++;
      }
    }
  }
  return numTried;
}

function endingRequest(prompt: readonly number[], { stop, logitBias, constraint }: Ending): GenerationRequest {
  const plain = request(prompt, stop, { returnState: true, ...(constraint && { constraint }) });
  return logitBias === undefined ? plain : { ...plain, sampling: { ...plain.sampling, logitBias } };
}

/** What five more bytes of whole sequences are, with the scores of their ids; each is computed once. */
class Oracle {
  readonly #outputs = new Map<string, Output>();

  constructor(private readonly runner: ModelRunner | PatchRunner) {}

  async goOn(ids: readonly number[]): Promise<Output> {
    const key = ids.join();
    const output = this.#outputs.get(key) ?? (await runAlone(this.runner, request(ids, REST, SCORED)));
    this.#outputs.set(key, output);
    return output;
  }
}

const REST = { maxNewBytes: 5 };
const SCORED = { promptScoring: { numTop: 1, entropy: false } };

async function expectGoesOn(
  runner: ModelRunner | PatchRunner,
  resume: SequenceState,
  whole: readonly number[],
  oracle: Oracle,
  compare: (actual: Output, expected: Output) => void,
): Promise<void> {
  for (const prompt of [[], [7], [...randomIds(5, runner.patchLength + 1)]]) {
    const output = await oracle.goOn([...whole, ...prompt]);
    const scored = { ...output, promptLogprobs: output.promptLogprobs.slice(whole.length) };
    const expected = { ...output, promptLogprobs: [] };
    compare(await runAlone(runner, request(prompt, REST, { resume, ...SCORED })), scored);
    compare(await runAlone(runner, request(prompt, REST, { resume })), expected);
    // Feeding without generating leads to a state that is as good.
    const fed = stateOf(await runAlone(runner, request(prompt, { maxNewBytes: 0 }, { resume, returnState: true })));
    compare(await runAlone(runner, request([], REST, { resume: fed })), expected);
  }
}

function request(prompt: readonly number[], stop: object, more: object = {}): GenerationRequest {
  return makeRequest({ prompt: Uint16Array.from(prompt), stop: { ignoreEos: true, ...stop }, numLogprobs: 1, more });
}

function stateOf({ last }: Output): SequenceState | undefined {
  if (last.type !== "finished") throw new Error(JSON.stringify(last));
  return last.state;
}
