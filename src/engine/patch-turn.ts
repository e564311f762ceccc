import { Histogram } from "../core/histogram.js";
import { MblmError } from "../errors.js";
import { BATCH_BOUNDS, type Turn, type TurnListener } from "./decode-turn.js";
import type { PatchRunner } from "./model-runner-interface.js";
import { ID_NONE_ALLOWED, needsTables, PatchBatch, type PatchOutput, samplingTables } from "./patch-batch.js";
import type { Sequence } from "./sequence.js";
import type { SlotTable } from "./slot-table.js";

/** What a sequence has on the device while it decodes. */
interface Prepared {
  readonly slot: number;
  readonly automaton: bigint | undefined;
}

/** One patch for every row, chosen on the device: one run, one read of the ids, then all that depends on them. */
export class PatchTurn implements Turn {
  readonly batchSize = new Histogram(BATCH_BOUNDS);
  readonly #batch: PatchBatch;
  readonly #prepared = new Map<Sequence, Prepared>();

  constructor(
    private readonly runner: PatchRunner,
    private readonly slots: SlotTable,
    private readonly listener: TurnListener,
  ) {
    this.#batch = new PatchBatch(runner.numSlots, runner.patchLength);
  }

  async run(): Promise<void> {
    this.#release(); // first, of those aborted since: at no time are there more automata than slots
    const sequences = this.#fill();
    if (sequences.length > 0) {
      this.batchSize.observe(sequences.length);
      const lengths = sequences.map((_, row) => this.runner.length(this.#batch.slot(row)));
      const output = await this.#runPatches(sequences);
      if (output !== undefined) {
        for (const [row, sequence] of sequences.entries()) await this.#take(row, sequence, lengths[row]!, output);
      }
    }
    this.listener.flush();
    this.#release();
  }

  /** Writes the batch; returns the sequences of its rows. One that the device has no room for fails, alone. */
  #fill(): Sequence[] {
    const sequences: Sequence[] = [];
    this.#batch.clear();
    for (let slot = 0; slot < this.slots.numRows; slot++) {
      const sequence = this.slots.row(slot);
      if (sequence === undefined) continue;
      try {
        const { automaton } = this.#prepare(sequence, slot);
        this.#batch.addSequence(slot, sequence, this.runner.length(slot), automaton);
        sequences.push(sequence);
      } catch (thrown) {
        this.listener.fail(sequence, thrown);
      }
    }
    return sequences;
  }

  /** Brings to the device what choosing needs beside the row, once for each sequence and slot. */
  #prepare(sequence: Sequence, slot: number): Prepared {
    const known = this.#prepared.get(sequence);
    if (known?.slot === slot) return known;
    const constraint = sequence.choosing.end.cursor?.constraint;
    const automaton = known?.automaton ?? (constraint && this.runner.holdAutomaton(constraint.automaton));
    const prepared = { slot, automaton };
    this.#prepared.set(sequence, prepared);
    if (needsTables(sequence)) {
      this.runner.setSamplingTables(slot, samplingTables(sequence, this.runner.info.vocabularySize));
    }
    return prepared;
  }

  /** Lets go of what ended sequences have on the device. */
  #release(): void {
    for (const sequence of this.#prepared.keys()) {
      if (this.slots.slotOf(sequence) !== undefined) continue;
      this.#prepared.delete(sequence);
      const constraint = sequence.choosing.end.cursor?.constraint;
      if (constraint !== undefined) this.runner.releaseAutomaton(constraint.automaton);
    }
  }

  /** A failure ends every sequence that the run was made for. */
  async #runPatches(sequences: readonly Sequence[]): Promise<PatchOutput | undefined> {
    try {
      return await this.runner.runPatches(this.#batch);
    } catch (thrown) {
      for (const sequence of sequences) this.listener.fail(sequence, thrown);
      return undefined;
    }
  }

  /** Takes the row's outputs until the sequence ends; what the device chose behind the end is forgotten. */
  async #take(row: number, sequence: Sequence, length: number, { ids, logits }: PatchOutput): Promise<void> {
    const slot = this.#batch.slot(row);
    const { patchLength } = this.runner;
    const { vocabularySize } = this.runner.info;
    try {
      for (let j = 0; j < patchLength && sequence.outputEnd === undefined; j++) {
        const output = row * patchLength + j;
        const fed = length + j + 1;
        if (fed < sequence.inputEnd) {
          sequence.scorePrompt(fed, logits, output * vocabularySize);
          sequence.endIfNothingIsLeft();
        } else {
          sequence.take(checkId(ids[output]!), logits, output * vocabularySize);
        }
        if (sequence.outputEnd !== undefined) await this.runner.rewind(slot, fed);
      }
    } catch (thrown) {
      this.listener.fail(sequence, thrown);
      return;
    }
    this.listener.commit(sequence);
  }
}

function checkId(id: number): number {
  if (id >= 0) return id;
  const problem = id === ID_NONE_ALLOWED ? "no id may come next" : "the model gave logits that are not finite";
  throw new MblmError("engine_failed", `The device could not choose an id: ${problem}.`);
}
