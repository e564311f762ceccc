import { type Static, Type } from "typebox";
import { CudaManifest } from "./cuda-manifest.js";
import { TensorTable } from "./tensor-table.js";
import { VqaManifest } from "./vqa-manifest.js";

/** The manifest format that this server reads; `scripts/multiscale/export/manifest.py` writes it. */
export const FORMAT_VERSION = 2;

const Count = Type.Integer({ minimum: 1 });
const NullableCount = Type.Union([Count, Type.Null()]);
const Id = Type.Integer({ minimum: 0 });
const NullableId = Type.Union([Id, Type.Null()]);
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
    pad_token_id: Id,
    seq_lens: Type.Array(Count),
    hidden_dims: Type.Array(Count),
    num_layers: Type.Array(Count),
    bytes_per_step: Type.Array(Count),
    context_length: Count,
    max_length: NullableCount,
  }),
  special_ids: Type.Object({ pad: NullableId, bos: NullableId, eos: NullableId }),
  stages: Type.Array(StageSchema, { minItems: 1 }),
  initial_logits: TensorReference,
  scoring_logits: TensorReference,
  chat: Type.Object({ template: Type.String(), stop: Type.Array(Type.String({ minLength: 1 })) }),
  /** Of a model that answers questions about images. */
  vqa: Type.Optional(VqaManifest),
  /** Of a bundle that runs on a device, too. */
  cuda: Type.Optional(CudaManifest),
  constants: TensorTable(Type.Literal("float32"), 1),
  /** All that the bundle has but the manifest: nothing else is read. */
  files: Type.Record(
    Type.String({ pattern: "^(?!\\.\\.?$)[A-Za-z0-9._-]+$" }),
    Type.Object({ bytes: Type.Integer({ minimum: 0 }), sha256: Type.String({ pattern: "^[0-9a-f]{64}$" }) }),
    { additionalProperties: false }, // no path out of the folder
  ),
  training: Type.Record(Type.String(), Type.Unknown()),
});

export type Manifest = Static<typeof ManifestSchema>;
export type StageManifest = Static<typeof StageSchema>;
export type StateManifest = Static<typeof StateSchema>;
