import type { ModelInfo } from "../../src/core/model-info.js";
import type { StateSnapshot } from "../../src/core/state-snapshot.js";
import type { LogitsVisitor, ModelRunner } from "../../src/engine/model-runner-interface.js";
import { computeLogprobs } from "../../src/sampling/logprobs.js";

export interface FakeRunnerOptions {
  readonly numSlots?: number;
  readonly patchLength?: number;
  readonly info?: Partial<ModelInfo>;
  /** Called before every prefill with the steps asked for; may throw, wait or advance a clock. */
  readonly onPrefill?: (slot: number, steps: number) => void;
  readonly onStep?: (numRows: number) => void;
}

interface FakeSequence {
  readonly length: number;
  /** Hash of all ids fed. */
  readonly hash: number;
  readonly bornAtReset: number;
  /** As it was at the last patch border and, until the next id is fed or prefill has crossed that one, at the one before. */
  readonly borders: readonly Border[];
}

interface Border {
  readonly length: number;
  readonly hash: number;
}

const INFO: ModelInfo = {
  id: "fake",
  createdSeconds: 0,
  numStages: 2,
  vocabularySize: 256,
  eosId: undefined,
  padId: undefined,
  contextLength: 4096,
  maxLength: undefined,
  chat: { template: "", stop: [] },
  precision: "fp32",
  numParameters: 1,
  bundleDigest: "0",
};

/** A byte model whose logits are a hash of all ids fed to the slot. It throws where a real runner would be misused. */
export class FakeRunner implements ModelRunner {
  readonly info: ModelInfo;
  readonly numSlots: number;
  readonly patchLength: number;
  readonly maxPrefillSteps = 64;
  readonly stateBytesPerSlot = 16;
  readonly stepSeconds = [];
  readonly initialLogits: Float32Array;
  readonly scoringLogits: Float32Array;
  /** Ids fed by prefill and scoring calls. */
  numPrefilled = 0;
  /** Active rows of every step, for tests of the schedule. */
  readonly steps: number[] = [];
  isDisposed = false;
  readonly #sequences: (FakeSequence | undefined)[];
  readonly #logits: Float32Array;
  #numResets = 0;

  constructor(private readonly options: FakeRunnerOptions = {}) {
    this.info = { ...INFO, ...options.info };
    this.numSlots = options.numSlots ?? 4;
    this.patchLength = options.patchLength ?? 8;
    this.#sequences = new Array(this.numSlots).fill(undefined);
    this.#logits = new Float32Array(this.numSlots * this.info.vocabularySize);
    this.initialLogits = new Float32Array(this.info.vocabularySize);
    writeLogits(this.initialLogits, 0, this.info.vocabularySize, 0);
    this.scoringLogits = new Float32Array(this.info.vocabularySize);
    writeLogits(this.scoringLogits, 0, this.info.vocabularySize, SCORING_HASH);
  }

  reset(slot: number): void {
    this.#requireSlot(slot);
    this.#sequences[slot] = { length: 0, hash: 0, bornAtReset: this.#numResets++, borders: [{ length: 0, hash: 0 }] };
  }

  length(slot: number): number {
    return this.#at(slot).length;
  }

  prefill(slot: number, ids: Uint16Array, maxSteps: number): number {
    return this.score(slot, ids, maxSteps, () => {});
  }

  score(slot: number, ids: Uint16Array, maxSteps: number, visit: LogitsVisitor): number {
    if (!(maxSteps >= 1)) throw new Error(`prefill of ${maxSteps} steps`);
    const { length } = this.#at(slot);
    if (length % this.patchLength !== 0) throw new Error("prefill inside a patch");
    const wholeSteps = Math.max(0, Math.ceil(ids.length / this.patchLength) - 1);
    const steps = Math.min(maxSteps, wholeSteps);
    if (steps === 0) return 0;
    this.options.onPrefill?.(slot, steps);
    const taken = steps * this.patchLength;
    const rows: Float32Array[] = [];
    for (let i = 0; i < taken; i++) {
      this.#feed(slot, ids[i]!);
      writeLogits(this.#logits, 0, this.info.vocabularySize, this.#at(slot).hash);
      rows.push(this.#logits.slice(0, this.info.vocabularySize));
    }
    for (let i = taken - 1; i >= 0; i--) visit(i, rows[i]!, 0); // any order is allowed
    const fed = this.#at(slot);
    this.#sequences[slot] = { ...fed, borders: fed.borders.slice(0, 1) };
    this.numPrefilled += taken;
    return taken;
  }

  step(firstSlot: number, ids: Uint16Array, active: Uint8Array): Float32Array {
    if (ids.length === 0 || ids.length !== active.length) throw new Error("bad row count");
    if (firstSlot + ids.length > this.numSlots) throw new Error("rows beyond the slots");
    if (active.at(-1) === 0) throw new Error("the last row is a hole");
    this.options.onStep?.(ids.length);
    this.steps.push(active.reduce((total, flag) => total + flag, 0));
    const { vocabularySize } = this.info;
    for (let row = 0; row < ids.length; row++) {
      if (active[row] === 1) this.#feed(firstSlot + row, ids[row]!);
      const hash = active[row] === 1 ? this.#at(firstSlot + row).hash : 0xbad;
      writeLogits(this.#logits, row * vocabularySize, vocabularySize, hash);
    }
    return this.#logits;
  }

  move(from: number, to: number): void {
    if (from === to) throw new Error("move to itself");
    this.#requireSlot(to);
    this.#sequences[to] = this.#at(from);
    this.#sequences[from] = undefined; // stricter than a real runner: the old slot must not be used again
  }

  swap(a: number, b: number): void {
    const [first, second] = [this.#at(a), this.#at(b)];
    this.#sequences[a] = second;
    this.#sequences[b] = first;
  }

  snapshot(slot: number): StateSnapshot {
    return { ...EMPTY_SNAPSHOT, ...this.#at(slot) } as StateSnapshot;
  }

  borderSnapshot(slot: number, length = this.length(slot)): StateSnapshot {
    const { borders, bornAtReset } = this.#at(slot);
    const border = borders.find((other) => other.length <= length);
    if (border === undefined || (this.info.numStages === 1 && border.length < length)) {
      throw new Error(`the border of the first ${length} ids is not there`);
    }
    return { ...EMPTY_SNAPSHOT, ...border, bornAtReset, borders: [border] } as unknown as StateSnapshot;
  }

  restore(slot: number, snapshot: StateSnapshot): void {
    this.#requireSlot(slot);
    const { length, hash, bornAtReset, borders } = snapshot as unknown as FakeSequence;
    this.#sequences[slot] = { length, hash, bornAtReset, borders };
  }

  fits(snapshot: StateSnapshot): boolean {
    return snapshot.recent.length === EMPTY_SNAPSHOT.recent.length;
  }

  dispose(): void {
    this.isDisposed = true;
  }

  #feed(slot: number, id: number): void {
    if (id >= this.info.vocabularySize) throw new Error(`id ${id} is outside the vocabulary`);
    const { length, hash, bornAtReset, borders } = this.#at(slot);
    const next = { length: length + 1, hash: mix(hash ^ mix(id + 1)) };
    const crossed = borders.slice(0, 1);
    this.#sequences[slot] = {
      ...next,
      bornAtReset,
      borders: next.length % this.patchLength === 0 ? [next, ...crossed] : crossed,
    };
  }

  #at(slot: number): FakeSequence {
    this.#requireSlot(slot);
    const sequence = this.#sequences[slot];
    if (sequence === undefined) throw new Error(`slot ${slot} was not reset`);
    return sequence;
  }

  #requireSlot(slot: number): void {
    if (!Number.isInteger(slot) || slot < 0 || slot >= this.numSlots) throw new Error(`no slot ${slot}`);
  }
}

const SCORING_HASH = 12345;
/** A state of one kilobyte. */
const EMPTY_SNAPSHOT = { crossedAt: 0, recent: new Uint16Array(512), contexts: [], stages: [] };

/** Log-probs of a sequence's ids by the fake model, the first one by its scoring logits. */
export function fakeLogprobs(ids: readonly number[]): number[] {
  return ids.map((id, i) => {
    const logits = i === 0 ? new Float32Array(256) : fakeLogits(ids.slice(0, i));
    if (i === 0) writeLogits(logits, 0, 256, SCORING_HASH);
    return computeLogprobs(logits, 0, 256, id, 0).logprob;
  });
}

/** Logits of the fake model after a whole sequence of ids: the reference for what the engine must have seen. */
export function fakeLogits(ids: Iterable<number>, vocabularySize = 256): Float32Array {
  let hash = 0;
  for (const id of ids) hash = mix(hash ^ mix(id + 1));
  const logits = new Float32Array(vocabularySize);
  writeLogits(logits, 0, vocabularySize, hash);
  return logits;
}

function writeLogits(target: Float32Array, offset: number, vocabularySize: number, hash: number): void {
  for (let id = 0; id < vocabularySize; id++) target[offset + id] = (mix(hash + 0x9e37 * (id + 1)) / 2 ** 32) * 8 - 4;
}

/** Integer hash with full avalanche (the finaliser of MurmurHash3). */
export function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
