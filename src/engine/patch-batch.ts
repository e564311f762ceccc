import type { Sequence } from "./sequence.js";

/** 32-bit words of a row: `struct PatchRow` in native/ops.h. */
export const ROW_WORDS = 32;

/** Positions in a row, in words; float64 fields in pairs of words. */
export const ROW = {
  slot: 0,
  first: 1,
  numForced: 2,
  flags: 3,
  topK: 4,
  numLeft: 5,
  numUnended: 6,
  automatonState: 7,
  seedLow: 8,
  seedHigh: 9,
  indexLow: 10,
  indexHigh: 11,
  automaton: 12,
  automatonClasses: 14,
  automatonStates: 15,
  temperature: 16,
  topP: 18,
  minP: 20,
  repetition: 22,
  presence: 24,
  frequency: 26,
} as const;

export const ROW_FLAG = {
  bias: 1,
  occurrence: 2,
  repetition: 4,
  disallowed: 8,
  constraint: 16,
  canEnd: 32,
  logits: 64,
} as const;

export const ID_FLAG = { seen: 1, disallowed: 2, end: 4 } as const;

/** What a runner gives in place of an id. */
export const ID_NOT_FINITE = -1;
export const ID_NONE_ALLOWED = -2;
/** The kernel gave up waiting for a part of itself: nothing of the patch is right. */
export const ID_FAILED = -3;

/** Per id: what choosing needs of a sequence; V each. */
export interface SamplingTables {
  /** Added to logits. */
  readonly bias: Float64Array;
  /** Times generated. */
  readonly counts: Int32Array;
  /** ID_FLAG */
  readonly idFlags: Uint8Array;
}

export interface PatchOutput {
  /** `[B, P]`: what follows each byte of the patch; the last is the next patch's first byte. Negative: see ID_NOT_FINITE. */
  readonly ids: Int32Array;
  /** `[B, P, V]`: of rows that asked for them. */
  readonly logits: Float32Array;
}

/** The rows of one run of patches, in memory that is allocated once. */
export class PatchBatch {
  readonly words: Int32Array; // maxRows · ROW_WORDS
  readonly #doubles: Float64Array;
  readonly #addresses: BigUint64Array;
  readonly forced: Int32Array; // maxRows · P
  numRows = 0;

  constructor(
    maxRows: number,
    readonly patchLength: number,
  ) {
    this.words = new Int32Array(maxRows * ROW_WORDS);
    this.#doubles = new Float64Array(this.words.buffer);
    this.#addresses = new BigUint64Array(this.words.buffer);
    this.forced = new Int32Array(maxRows * patchLength);
  }

  slot(row: number): number {
    return this.words[row * ROW_WORDS + ROW.slot]!;
  }

  first(row: number): number {
    return this.words[row * ROW_WORDS + ROW.first]!;
  }

  numForced(row: number): number {
    return this.words[row * ROW_WORDS + ROW.numForced]!;
  }

  /**
   * Adds a row whose ids are all known, such as a patch that is scored.
   *
   * @param ids the patch's bytes, and what follows the last if that is known
   */
  addForced(slot: number, ids: Uint16Array): void {
    const row = this.numRows++;
    const start = row * ROW_WORDS;
    this.words.fill(0, start, start + ROW_WORDS);
    this.words[start + ROW.slot] = slot;
    this.words[start + ROW.first] = ids[0]!;
    this.words[start + ROW.numForced] = this.patchLength;
    this.words[start + ROW.flags] = ROW_FLAG.logits;
    for (let j = 0; j < this.patchLength; j++) this.forced[row * this.patchLength + j] = ids[j + 1] ?? 0;
  }

  /**
   * Adds the row of a sequence whose slot has been fed `length` ids, a multiple of the patch's.
   *
   * @param automaton address of its constraint's tables, if it has one
   */
  addSequence(slot: number, sequence: Sequence, length: number, automaton: bigint | undefined): void {
    const row = this.numRows++;
    const { words } = this;
    const start = row * ROW_WORDS;
    const { sampling, numLogprobs } = sequence.request;
    const { history, end } = sequence.choosing;
    const numForced = Math.max(0, sequence.inputEnd - length - 1);
    words[start + ROW.slot] = slot;
    words[start + ROW.first] = sequence.idAt(length);
    words[start + ROW.numForced] = Math.min(numForced, this.patchLength);
    for (let j = 0; j < numForced && j < this.patchLength; j++) {
      this.forced[row * this.patchLength + j] = sequence.idAt(length + 1 + j);
    }
    const needsLogits = numLogprobs !== undefined || sequence.scorer?.isComplete === false;
    words[start + ROW.flags] =
      (sampling.logitBias.size > 0 ? ROW_FLAG.bias : 0) |
      (sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0 ? ROW_FLAG.occurrence : 0) |
      (sampling.repetitionPenalty !== 1 ? ROW_FLAG.repetition : 0) |
      (history.disallowedIds.length > 0 ? ROW_FLAG.disallowed : 0) |
      (end.cursor !== undefined ? ROW_FLAG.constraint : 0) |
      (end.cursor?.constraint.endsAtMismatch === true ? ROW_FLAG.canEnd : 0) |
      (needsLogits ? ROW_FLAG.logits : 0);
    words[start + ROW.topK] = sampling.topK;
    words[start + ROW.numLeft] = Math.min(end.numLeft, 0x7fffffff);
    words[start + ROW.numUnended] = Math.min(end.numUnended, 0x7fffffff);
    words[start + ROW.automatonState] = end.cursor?.state ?? 0;
    words[start + ROW.seedLow] = Number(BigInt.asIntN(32, sampling.seed));
    words[start + ROW.seedHigh] = Number(BigInt.asIntN(32, sampling.seed >> 32n));
    words[start + ROW.indexLow] = (history.numGenerated % 0x1_0000_0000) | 0;
    words[start + ROW.indexHigh] = Math.floor(history.numGenerated / 0x1_0000_0000);
    this.#addresses[(start + ROW.automaton) / 2] = automaton ?? 0n;
    words[start + ROW.automatonClasses] = end.cursor?.constraint.automaton.numClasses ?? 0;
    words[start + ROW.automatonStates] = end.cursor?.constraint.automaton.numStates ?? 0;
    const doubles = this.#doubles;
    doubles[(start + ROW.temperature) / 2] = sampling.temperature;
    doubles[(start + ROW.topP) / 2] = sampling.topP;
    doubles[(start + ROW.minP) / 2] = sampling.minP;
    doubles[(start + ROW.repetition) / 2] = sampling.repetitionPenalty;
    doubles[(start + ROW.presence) / 2] = sampling.presencePenalty;
    doubles[(start + ROW.frequency) / 2] = sampling.frequencyPenalty;
  }

  clear(): void {
    this.numRows = 0;
  }
}

/** Whether a sequence's rows refer to its slot's tables: end ids count where they are banned or a constraint asks for them. */
export function needsTables(sequence: Sequence): boolean {
  const { sampling } = sequence.request;
  const { history, end } = sequence.choosing;
  return (
    sampling.logitBias.size > 0 ||
    sampling.presencePenalty !== 0 ||
    sampling.frequencyPenalty !== 0 ||
    sampling.repetitionPenalty !== 1 ||
    history.disallowedIds.length > 0 ||
    end.numUnended > 0 ||
    end.cursor !== undefined
  );
}

/** The tables as they stand after what the sequence has generated so far. */
export function samplingTables(sequence: Sequence, vocabularySize: number): SamplingTables {
  const { sampling } = sequence.request;
  const { history, end } = sequence.choosing;
  const bias = new Float64Array(vocabularySize);
  for (const [id, value] of sampling.logitBias) bias[id] = value;
  const idFlags = history.seen.map((isSeen) => (isSeen === 1 ? ID_FLAG.seen : 0));
  for (const id of history.disallowedIds) idFlags[id]! |= ID_FLAG.disallowed;
  for (const id of end.endIds) if (id < vocabularySize) idFlags[id]! |= ID_FLAG.end;
  return { bias, counts: Int32Array.from(history.counts), idFlags };
}
