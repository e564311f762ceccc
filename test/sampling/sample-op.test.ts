import { beforeAll, describe, expect, it } from "vitest";
import { compileConstraint } from "../../src/constraints/compile-constraint.js";
import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import { systemClock } from "../../src/core/clock.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import type { ModelInfo } from "../../src/core/model-info.js";
import { needsTables, PatchBatch, samplingTables } from "../../src/engine/patch-batch.js";
import { Sequence } from "../../src/engine/sequence.js";
import type { DeviceBuffer } from "../../src/runtime/device.js";
import { Sampler } from "../../src/sampling/sampler.js";
import { Random } from "../constraints/random.js";
import { randomPattern } from "../constraints/random-pattern.js";
import { makeRequest } from "../engine/requests.js";
import { referenceLibrary } from "../native-library.js";
import { SampleOp } from "./sample-op.js";

const NUM_SLOTS = 5;
const NUM_SEQUENCES = 600;

let library: string;
beforeAll(() => {
  library = referenceLibrary();
}, 120_000);

function modelInfo(vocabularySize: number): ModelInfo {
  return { vocabularySize, eosId: vocabularySize > 256 ? 256 : undefined } as ModelInfo;
}

/** A distribution of one of the kinds that try the rule: spread, full of ties, with ids that cannot be, with one peak. */
function randomLogits(random: Random, into: Float32Array): void {
  const kind = random.pick(["spread", "ties", "gaps", "peak", "flat"]);
  for (let id = 0; id < into.length; id++) {
    const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
    into[id] =
      kind === "flat" ? 0.25 : kind === "ties" ? Math.round(2 * normal) : kind === "peak" ? 9 * normal : 2 * normal;
    if (kind === "gaps" && random.next() < 0.5) into[id] = -Infinity;
  }
}

function randomConstraint(random: Random): ByteAutomaton | undefined {
  try {
    return compileConstraint({ kind: "regex", pattern: randomPattern(random) }, "pattern");
  } catch {
    return undefined; // matches nothing, or is too large
  }
}

function randomRequest(random: Random, V: number): GenerationRequest {
  const someIds = (count: number): number[] => Array.from({ length: count }, () => random.integer(0, V - 1));
  const automaton = random.next() < 0.3 ? randomConstraint(random) : undefined;
  const needed = automaton?.distance[0] ?? 0;
  return makeRequest({
    prompt: Uint16Array.from(someIds(random.integer(1, 12))),
    sampling: {
      temperature: random.pick([0, 0.3, 1, 1, 1.7]),
      topK: random.pick([0, 0, 1, 3, 40, 1000]),
      topP: random.pick([1, 1, 0.95, 0.5, 0.01]),
      minP: random.pick([0, 0, 0.05, 0.3, 1]),
      repetitionPenalty: random.pick([1, 1, 1.3, 0.7]),
      presencePenalty: random.pick([0, 0, 0.5, -1]),
      frequencyPenalty: random.pick([0, 0, 0.3, -0.2]),
      logitBias: new Map(someIds(random.pick([0, 0, 5])).map((id) => [id, random.integer(-100, 100) / 10])),
      // With every byte there is one that fits whatever else is asked.
      ...(random.next() < 0.2 && automaton === undefined
        ? { allowedIds: [...new Set([65, 66, ...someIds(random.integer(1, 60))])] }
        : {}),
      seed: (BigInt(random.integer(0, 2 ** 31)) << 33n) | BigInt(random.integer(0, 2 ** 31)),
    },
    stop: {
      maxNewBytes: Math.max(1, needed + random.pick([0, 1, 5, 30])),
      minNewBytes: random.pick([0, 0, 2, 7]),
      stopIds: random.pick([[], [], [7], [7, 200]]),
    },
    ...(automaton === undefined ? {} : { more: { constraint: { automaton, endsAtMismatch: random.next() < 0.7 } } }),
  });
}

/** One sequence in a slot of the operator's tables. */
interface Running {
  readonly slot: number;
  readonly sequence: Sequence;
  readonly automaton: DeviceBuffer | undefined;
  readonly hasTables: boolean;
  length: number; // fed so far, whole patches
}

/** Sequences that go through their patches side by side, chosen by the operator and, beside it, by the sampler. */
class Comparison {
  readonly #op: SampleOp;
  readonly #sampler: Sampler;
  readonly #batch: PatchBatch;
  readonly #rows: (Running | undefined)[] = [];
  numStarted = 0;
  numChosen = 0;
  numRefused = 0;

  constructor(
    private readonly random: Random,
    private readonly V: number,
    private readonly P: number,
  ) {
    this.#op = new SampleOp(library, NUM_SLOTS, V, P);
    this.#sampler = new Sampler(V);
    this.#batch = new PatchBatch(NUM_SLOTS, P);
  }

  run(): void {
    while (this.numStarted < NUM_SEQUENCES) {
      for (let slot = 0; slot < NUM_SLOTS; slot++) this.#rows[slot] ??= this.#start(slot);
      this.#runPatch(this.#rows.filter((row) => row !== undefined));
      for (const row of this.#rows) if (row?.sequence.outputEnd !== undefined) this.#end(row);
    }
    this.#op.dispose();
  }

  #start(slot: number): Running {
    this.numStarted++;
    const request = randomRequest(this.random, this.V);
    const sequence = new Sequence(this.numStarted, request, modelInfo(this.V), systemClock);
    const automaton = request.constraint && this.#op.hold(request.constraint.automaton);
    const hasTables = needsTables(sequence);
    this.#op.setTables(slot, hasTables ? samplingTables(sequence, this.V) : this.#garbage());
    const prefilled = sequence.inputEnd - 1;
    return { slot, sequence, automaton, hasTables, length: prefilled - (prefilled % this.P) };
  }

  /** Tables that a row without flags must not depend on. */
  #garbage() {
    return {
      bias: new Float64Array(this.V).fill(Number.NaN),
      counts: new Int32Array(this.V).fill(1000),
      idFlags: new Uint8Array(this.V).fill(7),
    };
  }

  #end({ slot, automaton }: Running): void {
    automaton?.free();
    this.#rows[slot] = undefined;
  }

  #runPatch(rows: readonly Running[]): void {
    this.#batch.clear();
    for (const row of rows)
      this.#batch.addSequence(row.slot, row.sequence, row.length, row.automaton && BigInt(row.automaton.address));
    const logits = new Float32Array(NUM_SLOTS * this.V);
    for (let step = 0; step < this.P; step++) {
      for (let row = 0; row < rows.length; row++)
        randomLogits(this.random, logits.subarray(row * this.V, (row + 1) * this.V));
      const { ids, next } = this.#op.run(this.#batch, step, logits);
      expect(next).toEqual(ids.map((id) => Math.max(0, id)));
      for (const [index, row] of rows.entries()) this.#compare(row, step, ids[index]!, logits, index * this.V);
    }
    for (const row of rows) {
      row.length += this.P;
      const { sequence } = row;
      if (sequence.outputEnd === undefined && row.hasTables)
        expect([...this.#op.counts(row.slot)]).toEqual([...sequence.choosing.history.counts]);
    }
  }

  #compare({ sequence, length }: Running, step: number, id: number, logits: Float32Array, offset: number): void {
    if (sequence.outputEnd !== undefined) return;
    const fed = length + step + 1;
    if (fed < sequence.inputEnd) {
      expect(id).toBe(sequence.idAt(fed));
      return;
    }
    const { history, end } = sequence.choosing;
    let chosen: number;
    try {
      chosen = this.#sampler.sample(logits, offset, history, end.bannedIds, end.mask);
    } catch {
      expect(id).toBeLessThan(0);
      this.numRefused++;
      sequence.abort();
      return;
    }
    expect(
      id,
      JSON.stringify(sequence.request.sampling, (_, v) => (typeof v === "bigint" ? `${v}` : v)),
    ).toBe(chosen);
    this.numChosen++;
    sequence.take(id);
  }
}

describe("the operator Sample", () => {
  it.each([
    { V: 256, P: 8, seed: 1 },
    { V: 257, P: 4, seed: 2 },
    { V: 300, P: 1, seed: 3 },
  ])("chooses the very ids of the sampler: $V ids, patches of $P", ({ V, P, seed }) => {
    const comparison = new Comparison(new Random(seed), V, P);
    comparison.run();
    expect(comparison.numChosen).toBeGreaterThan(4000);
    expect(comparison.numRefused).toBeGreaterThan(0);
  });

  it("numbers its uniforms beyond 2^32", () => {
    const V = 64;
    const op = new SampleOp(library, 1, V, 1);
    const sampler = new Sampler(V);
    const logits = new Float32Array(V);
    const request = makeRequest({ prompt: "x", sampling: { temperature: 1, seed: 3n }, stop: { maxNewBytes: 1e6 } });
    const batch = new PatchBatch(1, 1);
    for (const numGenerated of [0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, 0x5_0000_0003]) {
      const sequence = new Sequence(0, request, modelInfo(V), systemClock);
      const { history, end } = sequence.choosing;
      Object.defineProperty(history, "numGenerated", { value: numGenerated });
      batch.clear();
      batch.addSequence(0, sequence, 0, undefined);
      expect(op.run(batch, 0, logits).ids).toEqual([sampler.sample(logits, 0, history, end.bannedIds)]);
    }
    op.dispose();
  });
});
