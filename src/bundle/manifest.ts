import { type Static, Type } from "typebox";
import Compile from "typebox/compile";
import { MblmError } from "../errors.js";
import { CudaManifest, cudaProblem } from "./cuda-manifest.js";
import { VqaManifest, vqaProblem } from "./vqa-manifest.js";

/** The manifest format that this server reads; `scripts/multiscale/export/manifest.py` writes it. */
export const FORMAT_VERSION = 2;

const Count = Type.Integer({ minimum: 1 });
const NullableCount = Type.Union([Count, Type.Null()]);
const TensorReference = Type.Object({ tensor: Type.String() });
const TensorPort = Type.Object({
  name: Type.String(),
  dtype: Type.Union([Type.Literal("float32"), Type.Literal("int64"), Type.Literal("int32")]),
  shape: Type.Array(Type.Union([Type.String(), Type.Integer()])),
});

const StateSchema = Type.Object({
  layer: Type.Integer({ minimum: 0 }),
  kind: Type.String(),
  past: Type.String(),
  present: Type.String(),
  dtype: Type.Literal("float32"),
  /** Per row. */
  shape: Type.Array(Count),
  /** in_place: past and present share memory. copy: present is copied back after the run. */
  update: Type.Union([Type.Literal("in_place"), Type.Literal("copy")]),
  /** none: a cache whose position 0 holds the start token and whose later positions are overwritten. */
  reset: Type.Union([Type.Literal("copy"), Type.Literal("none")]),
  initial: TensorReference,
});

const StageSchema = Type.Object({
  index: Type.Integer({ minimum: 0 }),
  role: Type.Union([Type.Literal("global"), Type.Literal("middle"), Type.Literal("local")]),
  block_type: Type.String(),
  graph: Type.String(),
  prefill_graph: Type.Union([Type.String(), Type.Null()]),
  bytes_per_step: Count,
  seq_len: Count,
  width: Count,
  max_steps: NullableCount,
  max_rows: NullableCount,
  inputs: Type.Array(TensorPort),
  outputs: Type.Array(TensorPort),
  states: Type.Array(StateSchema),
  start_context: Type.Union([TensorReference, Type.Null()]),
  num_parameters: Count,
  weight_bytes: Count,
});

export const ManifestSchema = Type.Object({
  format: Type.Literal("mblm-bundle"),
  format_version: Type.Literal(FORMAT_VERSION),
  name: Type.String({ minLength: 1 }),
  created: Type.String(),
  producer: Type.Object({ onnxruntime: Type.String() }),
  precision: Type.String(),
  architecture: Type.Object({
    num_stages: Count,
    vocab_size: Type.Integer({ minimum: 2, maximum: 65536 }),
    pad_token_id: Type.Integer({ minimum: 0 }),
    seq_lens: Type.Array(Count),
    hidden_dims: Type.Array(Count),
    num_layers: Type.Array(Count),
    bytes_per_step: Type.Array(Count),
    context_length: Count,
    max_length: NullableCount,
  }),
  special_ids: Type.Object({
    pad: Type.Union([Type.Integer(), Type.Null()]),
    bos: Type.Union([Type.Integer(), Type.Null()]),
    eos: Type.Union([Type.Integer(), Type.Null()]),
  }),
  stages: Type.Array(StageSchema, { minItems: 1 }),
  initial_logits: TensorReference,
  scoring_logits: TensorReference,
  chat: Type.Object({ template: Type.String(), stop: Type.Array(Type.String({ minLength: 1 })) }),
  /** Of a model that answers questions about images. */
  vqa: Type.Optional(VqaManifest),
  /** Of a bundle that runs on a device, too. */
  cuda: Type.Optional(CudaManifest),
  constants: Type.Object({
    file: Type.String(),
    tensors: Type.Record(
      Type.String(),
      Type.Object({
        dtype: Type.Literal("float32"),
        shape: Type.Array(Count),
        offset: Type.Integer({ minimum: 0 }),
        bytes: Count,
      }),
    ),
  }),
  files: Type.Record(
    Type.String({ pattern: "^[A-Za-z0-9._-]+$" }),
    Type.Object({ bytes: Type.Integer({ minimum: 0 }), sha256: Type.String({ pattern: "^[0-9a-f]{64}$" }) }),
    { additionalProperties: false }, // no path out of the folder
  ),
  training: Type.Record(Type.String(), Type.Unknown()),
});

export type Manifest = Static<typeof ManifestSchema>;
export type StageManifest = Static<typeof StageSchema>;
export type StateManifest = Static<typeof StateSchema>;

const validator = Compile(ManifestSchema);

/** Parses and checks a manifest; the error names the first offending path. */
export function parseManifest(text: string, source: string): Manifest {
  const data = parseJson(text, source);
  const version = (data as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version !== FORMAT_VERSION) {
    throw new MblmError(
      "bundle_invalid",
      `${source}: format_version ${version} is not supported (this server reads ${FORMAT_VERSION})`,
    );
  }
  if (!validator.Check(data)) {
    const problem = validator.Errors(data)[0];
    throw new MblmError(
      "bundle_invalid",
      `${source}: ${problem?.instancePath || "/"} ${problem?.message ?? "is wrong"}`,
    );
  }
  checkShapes(data, source);
  return data;
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MblmError("bundle_invalid", `${source} is not JSON`, { cause });
  }
}

/** Facts that the schema cannot state: lists agree in length, strides follow from sequence lengths. */
function checkShapes(manifest: Manifest, source: string): void {
  const { architecture, stages } = manifest;
  const problem = (message: string) => new MblmError("bundle_invalid", `${source}: ${message}`);
  for (const key of ["seq_lens", "hidden_dims", "num_layers", "bytes_per_step"] as const) {
    if (architecture[key].length !== architecture.num_stages) {
      throw problem(
        `architecture.${key} has ${architecture[key].length} entries for ${architecture.num_stages} stages`,
      );
    }
  }
  if (stages.length !== architecture.num_stages) throw problem(`stages has ${stages.length} entries`);
  let stride = 1;
  for (let i = stages.length - 1; i >= 0; i--) {
    const stage = stages[i]!;
    if (stage.index !== i || stage.bytes_per_step !== stride || architecture.bytes_per_step[i] !== stride) {
      throw problem(`stages[${i}]: index or bytes_per_step is wrong (a step covers ${stride} bytes)`);
    }
    if (stage.seq_len !== architecture.seq_lens[i] || stage.width !== architecture.hidden_dims[i]) {
      throw problem(`stages[${i}]: seq_len or width differs from architecture`);
    }
    stride *= stage.seq_len;
  }
  const wrong = manifest.vqa && vqaProblem(manifest.vqa, architecture.vocab_size);
  if (wrong !== undefined) throw problem(`vqa: ${wrong}`);
  const wrongForDevice = manifest.cuda && cudaProblem(manifest.cuda, architecture.num_stages);
  if (wrongForDevice !== undefined) throw problem(`cuda: ${wrongForDevice}`);
}
