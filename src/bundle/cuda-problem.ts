import { type CudaManifest, OPS_VERSION } from "./cuda-manifest.js";
import type { Manifest } from "./manifest.js";
import { tableProblem, tensorProblem } from "./tensor-table.js";

/** The first thing that is wrong beside what the schema says; undefined when all is well. The files that it names are there. */
export function cudaProblem(cuda: CudaManifest, { stages, architecture, files }: Manifest): string | undefined {
  const { ops_version, work_type, weights } = cuda;
  if (ops_version !== OPS_VERSION)
    return `ops_version ${ops_version} is not supported (this server has ${OPS_VERSION})`;
  if (cuda.stages.length !== stages.length)
    return `stages has ${cuda.stages.length} entries for ${stages.length} stages`;
  let problem = tableProblem(weights, files[weights.file]!.bytes);
  for (const name of ["initial_logits", "scoring_logits"]) {
    problem ??= tensorProblem(weights, name, architecture.vocab_size, "float32");
  }
  for (const [i, { seq_len, width }] of stages.slice(1).entries()) {
    problem ??= tensorProblem(weights, `stage${i}.start_context`, seq_len * width, work_type);
  }
  if (problem !== undefined) return `weights: ${problem}`;
  for (const [i, { states }] of cuda.stages.entries()) {
    const { max_steps } = stages[i]!;
    for (const [k, { shape, axis }] of states.entries()) {
      if (axis === null) continue;
      if (axis >= shape.length) return `stages[${i}].states[${k}].axis: ${axis} is none of [${shape}]`;
      if (max_steps === null || shape[axis]! < max_steps) {
        return `stages[${i}].states[${k}]: a cache has at least max_steps positions, this one has ${shape[axis]}`;
      }
    }
  }
  return undefined;
}
