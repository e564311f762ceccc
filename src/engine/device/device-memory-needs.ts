import type { CudaManifest } from "../../bundle/cuda-manifest.js";
import type { Manifest } from "../../bundle/manifest.js";
import { MAX_TABLE_BYTES } from "../../constraints/limits.js";
import { ELEMENT } from "../../runtime/device.js";
import { bucketsFor, MAX_SMALL_ROWS } from "./buckets.js";
import type { DeviceMemoryNeeds } from "./device-memory-plan.js";

/** How a runner will use a model's graphs. */
export interface DeviceWork {
  /** Most steps of a prefill call. */
  readonly maxPrefillSteps: number;
  /** Patches that are scored side by side: their contexts have rows of their own. */
  readonly numScoringRows: number;
  /** Most rows of a batch. */
  readonly maxRows: number;
  /** Batch sizes for which a graph is recorded, over all stages. */
  readonly numGraphs: number;
}

/** Of a stage's width in float32, what one row holds at a time: residual stream, norm, products of up to four widths, in both types. */
const WIDTHS_PER_ROW = 24;
/** What cuBLAS takes for a session, by NVIDIA's documentation on the largest devices. */
const PRODUCT_BYTES = 32 * 2 ** 20;
/** A recorded graph: some thousand kernels with their arguments. */
const GRAPH_BYTES = 8 * 2 ** 20;

/** An estimate, on the safe side for the workspace, a bound for constraints, exact for the rest. */
export function deviceMemoryNeeds(manifest: Manifest, cuda: CudaManifest, work: DeviceWork): DeviceMemoryNeeds {
  const local = manifest.stages.at(-1)!;
  const parents = cuda.stages.slice(0, -1);
  const workBytes = ELEMENT[cuda.work_type].bytes;
  const contextBytes = sum(manifest.stages.slice(1).map(({ seq_len, width }) => seq_len * width * workBytes));
  const localContextBytes = local.seq_len * local.width * workBytes;
  const state = sum(parents.map(stateBytes)) + contextBytes;
  const vocabularySize = manifest.architecture.vocab_size;
  const sampling = vocabularySize * (ELEMENT.float64.bytes + ELEMENT.int32.bytes + ELEMENT.uint8.bytes);
  const logits = local.seq_len * vocabularySize * ELEMENT.float32.bytes;
  const rows = Math.max(work.maxRows, work.numScoringRows);
  const workspace =
    prefillBytes(manifest, work.maxPrefillSteps) +
    rows * (patchBytes(manifest, workBytes) + logits + stateBytes(cuda.stages.at(-1)!)) +
    fusedBytes(cuda) +
    2 * cuda.stages.length * PRODUCT_BYTES +
    work.numGraphs * GRAPH_BYTES;
  return {
    // One place more than slots is for rows that only fill a batch.
    fixed: {
      weights: sum(Object.values(cuda.weights.tensors).map(({ bytes }) => bytes)),
      state: state + (work.numScoringRows + 1) * localContextBytes,
      sampling,
      constraints: 0,
      workspace,
    },
    perSlot: { weights: 0, state, sampling, constraints: MAX_TABLE_BYTES, workspace: 0 },
  };
}

function stateBytes({ states }: CudaManifest["stages"][number]): number {
  return sum(states.map(({ dtype, shape }) => shape.reduce((a, b) => a * b, ELEMENT[dtype].bytes)));
}

/** The fused kernels' own memory: some for each batch size that they may run, and for the trial at the start. */
function fusedBytes({ stages }: CudaManifest): number {
  const sizes = [1, ...bucketsFor(MAX_SMALL_ROWS)];
  const bytes = stages.map(({ fused }) => {
    return fused === undefined ? 0 : sum(sizes.map((rows) => fused.scratch_bytes + rows * fused.scratch_bytes_per_row));
  });
  return sum(bytes);
}

/** Activations of the widest stage above the local one; the sessions of stages run one after another, but keep what they took. */
function prefillBytes({ stages }: Manifest, maxSteps: number): number {
  return sum(stages.slice(0, -1).map(({ width }) => maxSteps * WIDTHS_PER_ROW * width * ELEMENT.float32.bytes));
}

/** Activations of one row of a local patch: queries, keys and values of all its positions stay until its end. */
function patchBytes({ stages, architecture }: Manifest, workBytes: number): number {
  const { seq_len, width } = stages.at(-1)!;
  const kept = architecture.num_layers.at(-1)! * seq_len * 3 * width * workBytes;
  return kept + WIDTHS_PER_ROW * width * ELEMENT.float32.bytes;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
