import type { ModelIdentity } from "./model-info.js";

/**
 * One sequence's state as a value: it can be kept, copied, moved to another thread and restored, bit for bit. Plain
 * data. Fits only the model (and format) that it was taken from.
 */
export interface StateSnapshot {
  /** Ids fed. */
  readonly length: number;
  /** Length at which the latest patch border was crossed; `length` may be at a border that is not crossed yet. */
  readonly crossedAt: number;
  /** The last S_0 ids, at index (position mod S_0). */
  readonly recent: Uint16Array;
  /** Context vectors from stage i to its child. */
  readonly contexts: readonly Float32Array[];
  /** State tensors of each stage; a border snapshot leaves out the local stage, which starts anew there. */
  readonly stages: readonly (readonly Float32Array[])[];
}

/** A sequence that can be gone on with: its state at a patch border, and the ids behind it. */
export interface SequenceState {
  /** Whose state it is. */
  readonly model: ModelIdentity;
  readonly snapshot: StateSnapshot;
  /** At least one id; of a model of one stage, where every id is a border, there may be none. */
  readonly tail: Uint16Array;
  /** 1 for every id that occurs in the sequence, for the repetition penalty. V */
  readonly seen: Uint8Array;
  /** What the next id is chosen from where no id is left to be fed; present exactly when `tail` is empty. V */
  readonly logits?: Float32Array;
}

/** Why a model cannot go on from the state: "is of …"; undefined if it can. */
export function misfit({ model }: SequenceState, info: ModelIdentity): string | undefined {
  if (model.id !== info.id) return `is of the model ${model.id}, not of ${info.id}`;
  if (model.bundleDigest !== info.bundleDigest) return `is of another bundle of ${info.id}: export or weights differ`;
  return undefined;
}

/** Ids of the sequence. */
export function stateLength({ snapshot, tail }: SequenceState): number {
  return snapshot.length + tail.length;
}

/** Memory that the state takes. */
export function stateBytes({ snapshot, tail, seen, logits }: SequenceState): number {
  return snapshotBytes(snapshot) + tail.byteLength + seen.byteLength + (logits?.byteLength ?? 0);
}

/** Memory that the snapshot takes. */
export function snapshotBytes(snapshot: StateSnapshot): number {
  const arrays = [snapshot.recent, ...snapshot.contexts, ...snapshot.stages.flat()];
  return arrays.reduce((sum, array) => sum + array.byteLength, 0);
}
