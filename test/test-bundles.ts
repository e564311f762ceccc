import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Bundle, loadBundle } from "../src/bundle/bundle.js";
import { createModelRunner } from "../src/engine/model-runner.js";
import type { ModelRunner } from "../src/engine/model-runner-interface.js";
import type { BackendChoice } from "../src/runtime/select-backend.js";
import { selectBackend } from "../src/runtime/select-backend.js";

const root = fileURLToPath(new URL(".bundles/", import.meta.url));

export interface GoldenCase {
  readonly prompt: number[];
  readonly greedy: number[];
  readonly logprobs: number[];
}

export const bundleNames = readdirSync(root);
export const bundleDir = (name: string): string => join(root, name);
export const loadTestBundle = (name: string): Promise<Bundle> => loadBundle(bundleDir(name));

/** A question about an image, and the log-prob of every answer by PyTorch's full forward. */
export interface AskedCase {
  /** Base64 of a file. */
  readonly image: string;
  readonly question: string;
  readonly logprobs: Readonly<Record<string, number>>;
}

export interface Golden {
  readonly cases: GoldenCase[];
  /** A longer sequence and the log-prob of each of its bytes by PyTorch's full forward. */
  readonly scored: { readonly ids: number[]; readonly logprobs: number[] };
  /** Of a model that answers questions about images. */
  readonly asked?: AskedCase[];
}

export function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(join(root, name, "golden.json"), "utf8")) as Golden;
}

export async function openRunner(
  name: string,
  numSlots: number,
  choice: BackendChoice = "c-api",
): Promise<ModelRunner> {
  return createModelRunner(await loadTestBundle(name), { numSlots, backend: selectBackend(choice).backend });
}

/** Feeds one id to one slot; returns a copy of its logits. */
export async function feed(runner: ModelRunner, slot: number, id: number): Promise<Float32Array> {
  return (await runner.step(slot, Uint16Array.of(id), Uint8Array.of(1))).slice();
}

/** Feeds a prompt with prefill in calls of at most `chunk` steps; returns the logits after it. */
export async function feedPrompt(
  runner: ModelRunner,
  slot: number,
  prompt: Uint16Array,
  chunk: number,
): Promise<Float32Array> {
  let logits = runner.initialLogits;
  while (runner.length(slot) < prompt.length) {
    const taken = chunk > 0 ? await runner.prefill(slot, prompt.subarray(runner.length(slot)), chunk) : 0;
    if (taken === 0) logits = await feed(runner, slot, prompt[runner.length(slot)]!);
  }
  return logits;
}

export function logSoftmax(logits: Float32Array): number[] {
  const max = Math.max(...logits);
  const sum = logits.reduce((total, x) => total + Math.exp(x - max), 0);
  return [...logits].map((x) => x - max - Math.log(sum));
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Deterministic small integers for test inputs. */
export function randomIds(seed: number, length: number): Uint16Array {
  let state = seed * 2654435761 + 1;
  return Uint16Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 1 + ((state >>> 8) % 255);
  });
}
