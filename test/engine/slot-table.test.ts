import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/core/clock.js";
import { Sequence } from "../../src/engine/sequence.js";
import { SlotTable } from "../../src/engine/slot-table.js";
import { FakeRunner, mix } from "./fake-runner.js";
import { makeRandom, makeRequest } from "./requests.js";

const runner4 = () => new FakeRunner({ numSlots: 4, patchLength: 1 });
const makeSequence = (runner: FakeRunner, key: number) => new Sequence(key, makeRequest(), runner.info, systemClock);

describe("SlotTable", () => {
  it("fills slots from the far end and rows from the front", () => {
    const table = new SlotTable(runner4());
    const [a, b] = [0, 1].map((key) => makeSequence(runner4(), key)) as [Sequence, Sequence];
    table.allocate(a);
    table.allocate(b);
    expect([table.slotOf(a), table.slotOf(b), table.numRows]).toEqual([3, 2, 0]);
    table.join(b);
    expect([table.slotOf(b), table.row(0), table.numRows, table.numFree]).toEqual([0, b, 1, 2]);
  });

  it("swaps with a prefilling sequence that sits where a row must go", () => {
    const runner = runner4();
    const table = new SlotTable(runner);
    const sequences = [0, 1, 2, 3].map((key) => makeSequence(runner, key));
    for (const sequence of sequences) table.allocate(sequence);
    for (const [key, sequence] of sequences.entries()) {
      const slot = table.slotOf(sequence)!;
      runner.step(slot, Uint16Array.of(key), Uint8Array.of(1));
    }
    table.join(sequences[0]!); // sits in slot 3; slot 0 is taken by the fourth
    expect([table.slotOf(sequences[0]!), table.slotOf(sequences[3]!)]).toEqual([0, 3]);
    for (const [key, sequence] of sequences.entries()) {
      expect(runner.snapshot(table.slotOf(sequence)!)).toMatchObject({ hash: mix(mix(key + 1)) });
    }
  });

  it("keeps every sequence with its own state through random joins, releases and compactions", () => {
    const random = makeRandom(2);
    const runner = new FakeRunner({ numSlots: 5, patchLength: 1 });
    const table = new SlotTable(runner);
    const states = new Map<Sequence, number>();
    const prefilling = new Set<Sequence>();
    for (let key = 0; key < 3000; key++) {
      const all = [...states.keys()];
      const action = random(3);
      if (action === 0 && table.numFree > 0) {
        table.compact();
        const sequence = makeSequence(runner, key);
        table.allocate(sequence);
        runner.step(table.slotOf(sequence)!, Uint16Array.of(key % 256), Uint8Array.of(1));
        states.set(sequence, mix(mix((key % 256) + 1)));
        prefilling.add(sequence);
      } else if (action === 1 && prefilling.size > 0) {
        const sequence = [...prefilling][random(prefilling.size)]!;
        table.compact();
        table.join(sequence);
        prefilling.delete(sequence);
      } else if (action === 2 && all.length > 0) {
        const sequence = all[random(all.length)]!;
        table.release(sequence);
        states.delete(sequence);
        prefilling.delete(sequence);
      }
      for (const [sequence, hash] of states) {
        const slot = table.slotOf(sequence)!;
        expect(runner.snapshot(slot)).toMatchObject({ hash });
        expect(slot < table.numRows).toBe(!prefilling.has(sequence));
      }
      expect(table.numFree).toBe(5 - states.size);
      if (table.numRows > 0) expect(table.row(table.numRows - 1)).toBeDefined();
    }
  });
});
