import { cudaProblem } from "./cuda-problem.js";
import type { Manifest, StageManifest } from "./manifest.js";
import { countValues, tableProblem, tensorProblem } from "./tensor-table.js";
import { vqaProblem } from "./vqa-manifest.js";

const DATE_TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/;

/** The first thing that is wrong beside what the schema says; undefined when all is well. */
export function manifestProblem(manifest: Manifest): string | undefined {
  const { vqa, cuda } = manifest;
  return (
    headerProblem(manifest) ??
    firstProblem(Object.entries(namedFiles(manifest)), ([where, file]) =>
      Object.hasOwn(manifest.files, file) ? undefined : `${where}: ${file} is not in files`,
    ) ??
    at("constants", tableProblem(manifest.constants, manifest.files[manifest.constants.file]!.bytes)) ??
    shapeProblem(manifest) ??
    at("vqa", vqa && vqaProblem(vqa, manifest.architecture.vocab_size)) ??
    at("cuda", cuda && cudaProblem(cuda, manifest))
  );
}

/** Files with graphs, by where the manifest names them. Of a bundle for a device only, none is for the CPU. */
export function graphFiles({ stages, cuda }: Manifest): Record<string, string> {
  const files: Record<string, string> = {};
  for (const [i, { graph, prefill_graph }] of (cuda?.only === true ? [] : stages).entries()) {
    files[`stages[${i}].graph`] = graph;
    if (prefill_graph !== null) files[`stages[${i}].prefill_graph`] = prefill_graph;
  }
  for (const [i, { step_graph, chunk_graph, fused }] of (cuda?.stages ?? []).entries()) {
    files[`cuda.stages[${i}].step_graph`] = step_graph;
    files[`cuda.stages[${i}].chunk_graph`] = chunk_graph;
    if (fused !== undefined) files[`cuda.stages[${i}].fused.graph`] = fused.graph;
  }
  return files;
}

function namedFiles(manifest: Manifest): Record<string, string> {
  const { constants, cuda } = manifest;
  return {
    ...graphFiles(manifest),
    "constants.file": constants.file,
    ...(cuda === undefined ? {} : { "cuda.weights.file": cuda.weights.file }),
  };
}

function headerProblem({ created, special_ids, architecture }: Manifest): string | undefined {
  if (!DATE_TIME.test(created) || Number.isNaN(Date.parse(created))) {
    return `created: ${JSON.stringify(created)} is not a date and time of ISO 8601`;
  }
  const { vocab_size, pad_token_id } = architecture;
  const ids = { "architecture.pad_token_id": pad_token_id, ...prefixed("special_ids.", special_ids) };
  return firstProblem(Object.entries(ids), ([where, id]) =>
    id === null || id < vocab_size ? undefined : `${where}: ${id} is outside the vocabulary of ${vocab_size}`,
  );
}

/** Lists agree in length; strides, roles and lengths follow from sequence lengths; constants are there in the size of their use. */
function shapeProblem(manifest: Manifest): string | undefined {
  const { architecture, stages, constants } = manifest;
  const { num_stages, seq_lens, hidden_dims, vocab_size } = architecture;
  for (const key of ["seq_lens", "hidden_dims", "num_layers", "bytes_per_step"] as const) {
    const { length } = architecture[key];
    if (length !== num_stages) return `architecture.${key} has ${length} entries for ${num_stages} stages`;
  }
  if (stages.length !== num_stages) return `stages has ${stages.length} entries`;
  let stride = 1;
  for (let i = num_stages - 1; i >= 0; i--) {
    const stage = stages[i]!;
    if (stage.index !== i || stage.bytes_per_step !== stride || architecture.bytes_per_step[i] !== stride) {
      return `stages[${i}]: index or bytes_per_step is wrong (a step covers ${stride} bytes)`;
    }
    if (stage.seq_len !== seq_lens[i] || stage.width !== hidden_dims[i]) {
      return `stages[${i}]: seq_len or width differs from architecture`;
    }
    const problem = stageProblem(manifest, stage, stages[i + 1]);
    if (problem !== undefined) return `stages[${i}].${problem}`;
    stride *= stage.seq_len;
  }
  if (architecture.context_length !== stride) {
    return `architecture.context_length: ${architecture.context_length} is not the product of seq_lens, ${stride}`;
  }
  const [{ max_steps, bytes_per_step }] = stages as [StageManifest];
  const maxLength = max_steps && max_steps * bytes_per_step;
  if (architecture.max_length !== maxLength) {
    return `architecture.max_length: ${architecture.max_length} is not what the first stage holds, ${maxLength}`;
  }
  return firstProblem(["initial_logits", "scoring_logits"] as const, (key) =>
    at("constants", tensorProblem(constants, manifest[key].tensor, vocab_size, "float32")),
  );
}

/** @param child the stage below; undefined for the local one */
function stageProblem(
  { constants }: Manifest,
  { index, role, seq_len, max_steps, start_context, states }: StageManifest,
  child: StageManifest | undefined,
): string | undefined {
  const expected = child === undefined ? "local" : index === 0 ? "global" : "middle";
  if (role !== expected) return `role is ${role}, of this stage it is ${expected}`;
  if (max_steps !== seq_len && (max_steps !== null || index > 0)) {
    return `max_steps is ${max_steps}, a sequence of the stage has ${seq_len}`;
  }
  if ((start_context === null) !== (child === undefined)) return "start_context: every stage but the local one has one";
  const problem =
    start_context && child && tensorProblem(constants, start_context.tensor, child.seq_len * child.width, "float32");
  if (problem) return `start_context: constants: ${problem}`;
  return firstProblem(states.entries(), ([i, { shape, reset, initial }]) => {
    let size = countValues(shape);
    if (reset === "none") {
      const [, capacity] = shape;
      if (shape.length !== 3 || max_steps === null || capacity! <= max_steps) {
        return `states[${i}]: a cache has [heads, more positions than max_steps, width], this one has [${shape}]`;
      }
      size /= capacity!;
    }
    return at(`states[${i}].initial: constants`, tensorProblem(constants, initial.tensor, size, "float32"));
  });
}

function firstProblem<T>(items: Iterable<T>, problemOf: (item: T) => string | undefined): string | undefined {
  for (const item of items) {
    const problem = problemOf(item);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function at(where: string, problem: string | undefined): string | undefined {
  return problem === undefined ? undefined : `${where}: ${problem}`;
}

function prefixed<T>(prefix: string, record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [prefix + key, value]));
}
