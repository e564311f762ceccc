import type { SequenceRunner } from "./model-runner-interface.js";
import type { Sequence } from "./sequence.js";

/**
 * Who sits in which slot. Decoding sequences are **rows**: they occupy the slots 0 … numRows − 1, so that one run of a
 * graph serves all of them. Prefilling ones sit at the far end until they join. A row that is released leaves a hole
 * until `compact()`.
 */
export class SlotTable {
  readonly #runner: SequenceRunner;
  readonly #sequences: (Sequence | undefined)[];
  readonly #slots = new Map<Sequence, number>();
  #numRows = 0;

  constructor(runner: SequenceRunner) {
    this.#runner = runner;
    this.#sequences = new Array(runner.numSlots).fill(undefined);
  }

  get numFree(): number {
    return this.#sequences.length - this.#slots.size;
  }

  get numOccupied(): number {
    return this.#slots.size;
  }

  /** Rows up to the last one that is not a hole. */
  get numRows(): number {
    return this.#numRows;
  }

  /** The sequence that decodes in a row; undefined for a hole. */
  row(index: number): Sequence | undefined {
    return this.#sequences[index];
  }

  slotOf(sequence: Sequence): number | undefined {
    return this.#slots.get(sequence);
  }

  /** Gives the sequence an empty slot at the far end. There must be a free one, and no holes among the rows. */
  allocate(sequence: Sequence): void {
    const slot = this.#sequences.lastIndexOf(undefined);
    this.#runner.reset(slot);
    this.#place(sequence, slot);
  }

  /** Makes the sequence the next row. There must be no holes among the rows. */
  join(sequence: Sequence): void {
    this.#moveTo(sequence, this.#numRows);
    this.#numRows++;
  }

  release(sequence: Sequence): void {
    const slot = this.#slots.get(sequence);
    if (slot === undefined) return;
    this.#sequences[slot] = undefined;
    this.#slots.delete(sequence);
    while (this.#numRows > 0 && this.#sequences[this.#numRows - 1] === undefined) this.#numRows--;
  }

  /** Fills every hole with the last row. */
  compact(): void {
    for (let hole = 0; hole < this.#numRows; hole++) {
      if (this.#sequences[hole] !== undefined) continue;
      this.#moveTo(this.#sequences[this.#numRows - 1]!, hole);
      while (this.#sequences[this.#numRows - 1] === undefined) this.#numRows--;
    }
  }

  /** Moves state and sequence to another slot; whoever sits there (a prefilling sequence) takes the old slot. */
  #moveTo(sequence: Sequence, to: number): void {
    const from = this.#slots.get(sequence)!;
    if (from === to) return;
    const displaced = this.#sequences[to];
    if (displaced === undefined) this.#runner.move(from, to);
    else this.#runner.swap(from, to);
    this.#sequences[from] = undefined;
    this.#place(sequence, to);
    if (displaced !== undefined) this.#place(displaced, from);
  }

  #place(sequence: Sequence, slot: number): void {
    this.#sequences[slot] = sequence;
    this.#slots.set(sequence, slot);
  }
}
