import { type Static, Type } from "typebox";
import { Element, TensorTable } from "./tensor-table.js";

/** The version of the operators' contract (native/ops.h) that this server has. */
export const OPS_VERSION = 1;

const Count = Type.Integer({ minimum: 1 });
/** Kernels read 16 bytes at a time; what a GPU allocates begins at a multiple of 256. */
const WEIGHT_ALIGNMENT = 256;

const DeviceState = Type.Object({
  name: Type.String(),
  dtype: Element,
  /** Per slot. */
  shape: Type.Array(Count, { minItems: 1 }),
  /** The axis that counts positions, of a cache; null: the state is one value. */
  axis: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
});

const DeviceStage = Type.Object({
  /** At most 8 rows, a step each; of the local stage a patch. */
  step_graph: Type.String(),
  /** Any number of rows and steps; of the local stage a patch. */
  chunk_graph: Type.String(),
  states: Type.Array(DeviceState),
  /**
   * As `step_graph`, with one operator for all layers (native/ops.h: of a local stage LocalPatch, which is its whole patch; of others
   * MambaStep), and what that needs for itself.
   */
  fused: Type.Optional(
    Type.Object({
      graph: Type.String(),
      scratch_bytes: Count,
      /** Beside those, for each row. */
      scratch_bytes_per_row: Count,
    }),
  ),
  max_chunk_steps: Type.Union([Count, Type.Null()]),
});

/** The manifest's `cuda`: graphs and weights for a device (`scripts/multiscale/export/cuda`). */
export const CudaManifest = Type.Object({
  ops_version: Type.Integer({ minimum: 1 }),
  /** Of products and caches. */
  work_type: Element,
  /** Whether the bundle has no graphs for the CPU. */
  only: Type.Optional(Type.Boolean()),
  weights: TensorTable(Element, WEIGHT_ALIGNMENT),
  stages: Type.Array(DeviceStage, { minItems: 2 }),
});

export type CudaManifest = Static<typeof CudaManifest>;
export type DeviceStageManifest = Static<typeof DeviceStage>;
export type FusedManifest = NonNullable<DeviceStageManifest["fused"]>;
export type DeviceStateManifest = Static<typeof DeviceState>;
