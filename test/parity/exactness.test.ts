import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModelRunner } from "../../src/engine/model-runner-interface.js";
import { bundleNames, feed, feedPrompt, loadTestBundle, openRunner, randomIds } from "../test-bundles.js";

const ROWS = 5;

/** Logits after every id of a sequence fed alone into a slot. */
async function trace(runner: ModelRunner, slot: number, ids: Uint16Array): Promise<Float32Array[]> {
  runner.reset(slot);
  const logits: Float32Array[] = [];
  for (const id of ids) logits.push(await feed(runner, slot, id));
  return logits;
}

describe.each(bundleNames)("%s is bit-exact", (name) => {
  let runner: ModelRunner;
  let length: number;
  beforeAll(async () => {
    runner = await openRunner(name, ROWS + 1);
    const { architecture } = (await loadTestBundle(name)).manifest;
    length = Math.min(3 * architecture.bytes_per_step[0]! + 5, architecture.context_length - 1, 70);
  });
  afterAll(() => runner.dispose());

  it("alone and in a batch of random neighbours", async () => {
    const sequences = Array.from({ length: ROWS }, (_, row) => randomIds(row + 1, length));
    const alone = await Promise.all([trace(runner, ROWS, sequences[2]!)]);
    for (let row = 0; row < ROWS; row++) runner.reset(row);
    for (let t = 0; t < length; t++) {
      const logits = await runner.step(
        0,
        Uint16Array.from(sequences, (s) => s[t]!),
        new Uint8Array(ROWS).fill(1),
      );
      const size = logits.length / ROWS;
      expect(logits.slice(2 * size, 3 * size)).toEqual(alone[0]![t]);
    }
  });

  it("with neighbours at other positions, and holes among them", async () => {
    const ids = randomIds(9, length);
    const alone = await trace(runner, ROWS, ids);
    for (let row = 0; row < ROWS; row++) {
      runner.reset(row);
      if (row !== 1) await feedPrompt(runner, row, randomIds(row, 1 + row * 3), 2);
    }
    for (let t = 0; t < length - 14; t++) {
      const active = Uint8Array.from({ length: ROWS }, (_, row) => (row === 3 && t > 5 ? 0 : 1));
      const fed = Uint16Array.from({ length: ROWS }, (_, row) => (row === 1 ? ids[t]! : 7 + row));
      const logits = await runner.step(0, fed, active);
      const size = logits.length / ROWS;
      expect(logits.slice(size, 2 * size)).toEqual(alone[t]);
    }
  });

  it.each([1, 3, 16, 64])("byte by byte and prefilled in chunks of %i steps", async (chunk) => {
    const prompt = randomIds(4, length);
    const expected = (await trace(runner, 0, prompt)).at(-1);
    for (const slot of [1, ROWS]) {
      runner.reset(slot);
      expect(await feedPrompt(runner, slot, prompt, chunk)).toEqual(expected);
    }
  });

  it.each([1, 3, 64])("scored in calls of %i patches side by side", async (chunk) => {
    const ids = randomIds(14, length);
    const expected = await trace(runner, 0, ids);
    for (const slot of [1, ROWS]) {
      runner.reset(slot);
      const seen = new Map<number, Float32Array>();
      while (runner.length(slot) < length) {
        const fed = runner.length(slot);
        const taken = await runner.score(slot, ids.subarray(fed), chunk, (index, logits, offset) => {
          seen.set(fed + index, logits.slice(offset, offset + runner.info.vocabularySize));
        });
        if (taken === 0) seen.set(fed, await feed(runner, slot, ids[fed]!));
      }
      expect([...seen].sort(([a], [b]) => a - b).map(([, logits]) => logits)).toEqual(expected);
    }
  });

  it("resumed from its last patch border, wherever it stood", async () => {
    const ids = randomIds(15, length);
    const expected = (await trace(runner, 0, ids)).at(-1);
    for (let cut = 0; cut < length; cut += 1 + (cut % 3)) {
      runner.reset(1);
      for (const id of ids.subarray(0, cut)) await feed(runner, 1, id);
      const snapshot = runner.borderSnapshot(1);
      expect(snapshot.length).toBe(cut - (cut % runner.patchLength));
      await trace(runner, 2, randomIds(cut, 1 + (cut % 9)));
      runner.reset(2);
      runner.restore(2, snapshot);
      while ((await runner.prefill(2, ids.subarray(runner.length(2)), 1 + (cut % 5))) > 0);
      expect(length - runner.length(2)).toBeLessThanOrEqual(runner.patchLength);
      expect(await feedPrompt(runner, 2, ids, 0)).toEqual(expected);
    }
  });

  it("after moving, and after a snapshot is restored elsewhere", async () => {
    const ids = randomIds(5, length);
    const expected = (await trace(runner, 0, ids)).at(-1);
    for (const cut of [1, Math.floor(length / 2), length - 1]) {
      runner.reset(1);
      for (const id of ids.subarray(0, cut)) await feed(runner, 1, id);
      const snapshot = runner.snapshot(1);
      runner.move(1, 3);
      await trace(runner, 1, randomIds(6, 9)); // the slot goes on with other work
      runner.restore(2, snapshot);
      for (const slot of [2, 3]) {
        let logits: Float32Array = new Float32Array();
        for (const id of ids.subarray(cut)) logits = await feed(runner, slot, id);
        expect(logits).toEqual(expected);
      }
    }
  });

  it("in a slot that another sequence has used", async () => {
    const ids = randomIds(7, length);
    const fresh = await trace(runner, 4, ids);
    await trace(runner, 4, randomIds(8, length));
    expect(await trace(runner, 4, ids)).toEqual(fresh);
  });
});
