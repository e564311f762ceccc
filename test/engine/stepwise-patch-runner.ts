import type { ByteAutomaton } from "../../src/core/byte-automaton.js";
import type { StateSnapshot } from "../../src/core/state-snapshot.js";
import { ConstraintCursor } from "../../src/engine/constraint-cursor.js";
import type { LogitsVisitor, ModelRunner, PatchRunner } from "../../src/engine/model-runner-interface.js";
import {
  ID_FLAG,
  ID_NONE_ALLOWED,
  type PatchBatch,
  type PatchOutput,
  ROW,
  ROW_FLAG,
  ROW_WORDS,
  type SamplingTables,
} from "../../src/engine/patch-batch.js";
import { Sampler } from "../../src/sampling/sampler.js";
import type { SamplingHistory } from "../../src/sampling/sampling-history.js";
import { UniformSource } from "../../src/sampling/uniform-source.js";

/** A row read back from its words. */
class Row {
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly automaton: bigint;

  constructor(batch: PatchBatch, row: number) {
    this.#words = batch.words.slice(row * ROW_WORDS, (row + 1) * ROW_WORDS);
    this.#doubles = new Float64Array(this.#words.buffer);
    this.automaton = new BigUint64Array(this.#words.buffer)[ROW.automaton / 2]!;
  }

  int(field: keyof typeof ROW): number {
    return this.#words[ROW[field]]!;
  }

  double(field: keyof typeof ROW): number {
    return this.#doubles[ROW[field] / 2]!;
  }

  has(flag: keyof typeof ROW_FLAG): boolean {
    return (this.int("flags") & ROW_FLAG[flag]) !== 0;
  }

  get seed(): bigint {
    return BigInt(this.int("seedLow") >>> 0) | (BigInt(this.int("seedHigh") >>> 0) << 32n);
  }

  get index(): number {
    return (this.int("indexLow") >>> 0) + (this.int("indexHigh") >>> 0) * 2 ** 32;
  }
}

/**
 * A patch runner out of a runner that is fed byte by byte: the slow reference of what a device does in one run. Of a sequence
 * it knows only what row and tables say.
 */
export class StepwisePatchRunner implements PatchRunner {
  readonly info;
  readonly numSlots;
  readonly patchLength;
  readonly maxPrefillSteps;
  readonly stateBytesPerSlot;
  readonly stepSeconds;
  readonly initialLogits;
  readonly scoringLogits;
  readonly #sampler: Sampler;
  readonly #tables = new Map<number, SamplingTables>();
  readonly #automata = new Map<bigint, ByteAutomaton>();
  /** Address and number of holders. */
  readonly #holds = new Map<ByteAutomaton, { address: bigint; count: number }>();
  /** Of each slot's latest patch: the state before it and its bytes. */
  readonly #latest = new Map<number, { before: StateSnapshot; ids: number[] }>();
  #numHolds = 0n;

  constructor(private readonly runner: ModelRunner) {
    this.info = runner.info;
    this.numSlots = runner.numSlots;
    this.patchLength = runner.patchLength;
    this.maxPrefillSteps = runner.maxPrefillSteps;
    this.stateBytesPerSlot = runner.stateBytesPerSlot;
    this.stepSeconds = runner.stepSeconds;
    this.initialLogits = runner.initialLogits;
    this.scoringLogits = runner.scoringLogits;
    this.#sampler = new Sampler(runner.info.vocabularySize);
  }

  /** Automata held and not released. */
  get numHeld(): number {
    return this.#automata.size;
  }

  async runPatches(batch: PatchBatch): Promise<PatchOutput> {
    const { vocabularySize } = this.info;
    const size = batch.numRows * this.patchLength;
    const output = {
      ids: new Int32Array(size).fill(-99),
      logits: new Float32Array(size * vocabularySize).fill(Number.NaN),
    };
    for (let row = 0; row < batch.numRows; row++) await this.#runRow(batch, row, output);
    return output;
  }

  async #runRow(batch: PatchBatch, number: number, { ids, logits }: PatchOutput): Promise<void> {
    const row = new Row(batch, number);
    const slot = batch.slot(number);
    if (this.runner.length(slot) % this.patchLength !== 0) throw new Error("a patch that does not begin at a border");
    const latest = { before: this.runner.borderSnapshot(slot), ids: [] as number[] };
    this.#latest.set(slot, latest);
    const choice = this.#choice(row, slot);
    let id = batch.first(number);
    for (let j = 0; j < this.patchLength; j++) {
      latest.ids.push(id);
      const fed = await this.runner.step(slot, Uint16Array.of(id), Uint8Array.of(1));
      const place = number * this.patchLength + j;
      if (row.has("logits")) logits.set(fed.subarray(0, this.info.vocabularySize), place * this.info.vocabularySize);
      ids[place] = j < row.int("numForced") ? batch.forced[place]! : choice(fed);
      id = Math.max(0, ids[place]);
    }
  }

  /** Chooses one id after the other for a row; once none can be chosen, none is any more. */
  #choice(row: Row, slot: number): (logits: Float32Array) => number {
    const { vocabularySize } = this.info;
    const tables = this.#tables.get(slot);
    const idFlags = tables?.idFlags ?? new Uint8Array(vocabularySize);
    const flagged = (flag: keyof typeof ID_FLAG) =>
      [...idFlags.keys()].filter((id) => (idFlags[id]! & ID_FLAG[flag]) !== 0);
    const automaton = this.#automata.get(row.automaton);
    if (row.has("constraint") && automaton?.numStates !== row.int("automatonStates"))
      throw new Error("no such automaton");
    const cursor =
      automaton && new ConstraintCursor({ automaton, endsAtMismatch: row.has("canEnd") }, row.int("automatonState"));
    const history = {
      params: {
        temperature: row.double("temperature"),
        topK: row.int("topK"),
        topP: row.double("topP"),
        minP: row.double("minP"),
        repetitionPenalty: row.has("repetition") ? row.double("repetition") : 1,
        presencePenalty: row.has("occurrence") ? row.double("presence") : 0,
        frequencyPenalty: row.has("occurrence") ? row.double("frequency") : 0,
        logitBias: new Map(row.has("bias") ? tables!.bias.entries() : []),
      },
      counts: tables?.counts ?? new Int32Array(vocabularySize),
      seen: idFlags, // only the lowest flag counts
      uniforms: new UniformSource(row.seed),
      disallowedIds: row.has("disallowed") ? flagged("disallowed") : [],
      numGenerated: row.index,
    };
    const endIds = flagged("end");
    let numSampled = 0;
    let failed = 0;
    return (logits) => {
      const mayEnd = numSampled >= row.int("numUnended");
      const numLeft = row.int("numLeft") - numSampled;
      const mask = cursor && { apply: (scores: Float64Array) => cursor.apply(scores, numLeft, mayEnd, endIds) };
      history.seen = idFlags.map((flags) => flags & ID_FLAG.seen);
      if (failed === 0) {
        try {
          const id = this.#sampler.sample(logits, 0, history as unknown as SamplingHistory, mayEnd ? [] : endIds, mask);
          history.counts[id]!++;
          idFlags[id]! |= ID_FLAG.seen;
          history.numGenerated++;
          numSampled++;
          cursor?.push(id);
          return id;
        } catch {
          failed = ID_NONE_ALLOWED;
        }
      }
      return failed;
    };
  }

  async rewind(slot: number, length: number): Promise<void> {
    const { before, ids } = this.#latest.get(slot)!;
    this.runner.reset(slot);
    this.runner.restore(slot, before);
    const kept = length - before.length;
    if (kept < 1 || kept > this.patchLength) throw new Error(`${length} is not in the latest patch`);
    for (const id of ids.slice(0, kept)) await this.runner.step(slot, Uint16Array.of(id), Uint8Array.of(1));
  }

  setSamplingTables(slot: number, { bias, counts, idFlags }: SamplingTables): void {
    this.#tables.set(slot, { bias: bias.slice(), counts: counts.slice(), idFlags: idFlags.slice() });
  }

  holdAutomaton(automaton: ByteAutomaton): bigint {
    const hold = this.#holds.get(automaton) ?? { address: ++this.#numHolds, count: 0 };
    hold.count++;
    this.#holds.set(automaton, hold);
    this.#automata.set(hold.address, automaton);
    return hold.address;
  }

  releaseAutomaton(automaton: ByteAutomaton): void {
    const hold = this.#holds.get(automaton);
    if (hold === undefined) throw new Error("an automaton that is not held");
    if (--hold.count > 0) return;
    this.#holds.delete(automaton);
    this.#automata.delete(hold.address);
  }

  reset(slot: number): void {
    this.runner.reset(slot);
  }

  length(slot: number): number {
    return this.runner.length(slot);
  }

  prefill(slot: number, ids: Uint16Array, maxSteps: number): number | Promise<number> {
    return this.runner.prefill(slot, ids, maxSteps);
  }

  score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): number | Promise<number> {
    return this.runner.score(slot, ids, maxSteps, visit);
  }

  move(from: number, to: number): void {
    this.#tables.delete(to);
    this.runner.move(from, to);
  }

  swap(a: number, b: number): void {
    this.runner.swap(a, b);
  }

  snapshot(slot: number): StateSnapshot {
    return this.runner.snapshot(slot);
  }

  borderSnapshot(slot: number, length?: number): StateSnapshot {
    return this.runner.borderSnapshot(slot, length);
  }

  restore(slot: number, snapshot: StateSnapshot): void {
    this.runner.restore(slot, snapshot);
  }

  fits(snapshot: StateSnapshot): boolean {
    return this.runner.fits(snapshot);
  }

  dispose(): void {
    this.runner.dispose();
  }
}
