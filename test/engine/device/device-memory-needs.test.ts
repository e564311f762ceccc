import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { CudaManifest } from "../../../src/bundle/cuda-manifest.js";
import { parseManifest } from "../../../src/bundle/parse-manifest.js";
import { compileConstraint } from "../../../src/constraints/compile-constraint.js";
import { deviceMemoryNeeds } from "../../../src/engine/device/device-memory-needs.js";
import { bundleDir } from "../../test-bundles.js";

const path = join(bundleDir("mamba2-transformer"), "manifest.json");
const manifest = parseManifest(readFileSync(path, "utf8"), path);
const local = manifest.stages.at(-1)!;
const vocabularySize = manifest.architecture.vocab_size;

const cuda: CudaManifest = {
  ops_version: 1,
  work_type: "float16",
  weights: {
    file: "cuda-weights.bin",
    tensors: {
      a: { dtype: "float16", shape: [100, 3], offset: 0, bytes: 600 },
      b: { dtype: "float32", shape: [10], offset: 768, bytes: 40 },
    },
  },
  stages: [
    {
      step_graph: "a.onnx",
      chunk_graph: "b.onnx",
      states: [
        { name: "state.0.ssm", dtype: "float32", shape: [2, 3, 5], axis: null },
        { name: "state.1.k", dtype: "float16", shape: [4, 8], axis: 1 },
      ],
      max_chunk_steps: null,
    },
    { step_graph: "c.onnx", chunk_graph: "d.onnx", states: [], max_chunk_steps: null },
  ],
};
const work = { maxPrefillSteps: 64, numScoringRows: 16, maxRows: 8, numGraphs: 4 };
const needs = (changes: Partial<typeof work> = {}, of = cuda) =>
  deviceMemoryNeeds(manifest, of, { ...work, ...changes });

describe("what a model needs of a device's memory", () => {
  const contextBytes = local.seq_len * local.width * 2;
  const stateBytes = 2 * 3 * 5 * 4 + 4 * 8 * 2 + contextBytes;

  it("is its weights", () => {
    expect(needs().fixed.weights).toBe(640);
    expect(needs().perSlot.weights).toBe(0);
  });

  it("is states and contexts of each sequence, one more, and contexts of patches that are scored", () => {
    expect(needs().perSlot.state).toBe(stateBytes);
    expect(needs().fixed.state).toBe(stateBytes + 17 * contextBytes);
  });

  it("is a bias, a count and flags of each id", () => {
    expect(needs().perSlot.sampling).toBe(13 * vocabularySize);
    expect(needs().fixed.sampling).toBe(13 * vocabularySize);
  });

  it("is the tables of any constraint, of each sequence", () => {
    const { fixed, perSlot } = needs();
    expect(fixed.constraints).toBe(0);
    // Many states of few classes, many classes, and repetitions of repetitions.
    for (const pattern of ["(a|b)*a(a|b){11}", "[a-zß-ÿĀ-ž]{0,9000}", "(?:[a-z]{1,40} ){1,200}"]) {
      const automaton = compileConstraint({ kind: "regex", pattern }, "regex");
      const tables = [automaton.distance, automaton.next, automaton.classes, automaton.accepting];
      const bytes = tables.reduce((sum, { byteLength }) => sum + byteLength, 0);
      expect(bytes).toBeGreaterThan(10_000);
      expect(bytes).toBeLessThanOrEqual(perSlot.constraints);
    }
    expect(perSlot.constraints).toBe(2 * 2_000_000 + 5 * 60_000 + 256);
  });

  it("is a workspace that grows with prefill, rows and graphs, not with slots", () => {
    const base = needs().fixed.workspace;
    expect(needs().perSlot.workspace).toBe(0);
    for (const more of [{ maxPrefillSteps: 65 }, { maxRows: 17 }, { numScoringRows: 17 }, { numGraphs: 5 }]) {
      expect(needs(more).fixed.workspace).toBeGreaterThan(base);
    }
    const [parent, last] = cuda.stages;
    const fused = { graph: "e.onnx", scratch_bytes: 100, scratch_bytes_per_row: 7 };
    const more = needs({}, { ...cuda, stages: [parent!, { ...last!, fused }] }).fixed.workspace - base;
    expect(more).toBe(5 * 100 + (1 + 1 + 2 + 4 + 8) * 7); // the trial, and batches of 1, 2, 4 and 8
    expect(needs({ maxRows: 16 }).fixed.workspace).toBe(base); // rows for scoring are there anyway
    expect(needs({}, { ...cuda, work_type: "float32" }).fixed.workspace).toBeGreaterThan(base);
  });
});
