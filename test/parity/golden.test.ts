import { describe, expect, it } from "vitest";
import type { ModelRunner } from "../../src/engine/model-runner-interface.js";
import {
  argmax,
  bundleNames,
  feed,
  feedPrompt,
  loadTestBundle,
  logSoftmax,
  openRunner,
  readGolden,
} from "../test-bundles.js";

/** Largest |Δ log-prob| against PyTorch's float32 weights: rounding for fp32, changed weights otherwise. */
const TOLERANCE: Record<string, number> = { fp32: 1e-4, fp16: 2e-2, int8: 0.2 };

/** Checks every case: greedy bytes equal PyTorch's full forward, and so do their log-probs. */
async function checkGolden(runner: ModelRunner, name: string, tolerance: number): Promise<void> {
  for (const { prompt, greedy, logprobs } of readGolden(name).cases) {
    runner.reset(0);
    let logits = await feedPrompt(runner, 0, Uint16Array.from(prompt), 3);
    for (const [i, expected] of greedy.entries()) {
      const distribution = logSoftmax(logits);
      expect(Math.abs(distribution[expected]! - logprobs[i]!)).toBeLessThanOrEqual(tolerance);
      if (tolerance <= 1e-4) expect(argmax(distribution)).toBe(expected);
      logits = await feed(runner, 0, expected);
    }
  }
}

/** Checks the log-prob of every byte of a sequence, the first one included. */
async function checkScored(runner: ModelRunner, name: string, tolerance: number): Promise<void> {
  const { ids, logprobs } = readGolden(name).scored;
  runner.reset(0);
  let logits = runner.scoringLogits;
  for (const [i, id] of ids.entries()) {
    expect(Math.abs(logSoftmax(logits)[id]! - logprobs[i]!)).toBeLessThanOrEqual(tolerance);
    logits = await feed(runner, 0, id);
  }
}

describe.each(bundleNames)("%s", (name) => {
  it("scores as PyTorch's training loss does", async () => {
    const { manifest } = await loadTestBundle(name);
    const runner = await openRunner(name, 1);
    await checkScored(runner, name, TOLERANCE[manifest.precision]!);
    runner.dispose();
  });

  it("equals PyTorch's full forward through the C API", async () => {
    const { manifest } = await loadTestBundle(name);
    const runner = await openRunner(name, 2);
    await checkGolden(runner, name, TOLERANCE[manifest.precision]!);
    runner.dispose();
  });

  it("equals PyTorch's full forward through onnxruntime-node", async () => {
    const { manifest } = await loadTestBundle(name);
    const runner = await openRunner(name, 1, "node");
    await checkGolden(runner, name, TOLERANCE[manifest.precision]!);
    runner.dispose();
  });
});
