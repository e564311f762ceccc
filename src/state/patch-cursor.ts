/**
 * Where a sequence stands in the hierarchy. Pure arithmetic on byte counts.
 *
 * `strides[i]` is S_i, the bytes that one step of stage i covers; the last is 1.
 */

/**
 * The stage that must make a step before the byte at index `length` can be fed, or -1 for none: the outermost non-local
 * stage whose step the first `length` bytes complete. Every stage inside it starts anew.
 */
export function dueStage(length: number, strides: readonly number[]): number {
  if (length === 0) return -1;
  for (let stage = 0; stage < strides.length - 1; stage++) if (length % strides[stage]! === 0) return stage;
  return -1;
}

/** Steps that stage `stage` has made in its current parent sequence after `length` bytes, start token not counted. */
export function stepsMade(length: number, stage: number, strides: readonly number[]): number {
  const inParent = stage === 0 ? length : length % strides[stage - 1]!;
  return Math.floor(inParent / strides[stage]!);
}

/** Whole patches of one stage's parent sequence. */
export interface PatchRun {
  readonly stage: number;
  /** At least 1. */
  readonly patches: number;
  /** One per patch, except that a patch which ends the parent's sequence is the outer stage's step. */
  readonly steps: number;
}

/**
 * What prefill can feed next, without the local stage. `length` bytes are fed and `total` are known; at least one is left
 * for the local stage, whose output predicts the byte after the prompt.
 * Returns undefined when only local steps are left, or when the sequence stands inside a patch.
 */
export function nextPrefill(length: number, total: number, strides: readonly number[]): PatchRun | undefined {
  const numPrefillStages = Math.max(1, strides.length - 1);
  for (let stage = 0; stage < numPrefillStages; stage++) {
    const stride = strides[stage]!;
    if (length % stride !== 0) continue;
    const available = Math.floor((total - 1 - length) / stride);
    const beforeParent = stepsBeforeParent(length, stage, strides);
    const patches = Math.min(available, beforeParent + 1);
    if (patches > 0) return { stage, patches, steps: Math.min(patches, beforeParent) };
  }
  return undefined;
}

/**
 * Bytes after which every stage above the local one has made a step that the logits of the next byte depend on; of those for which
 * `maxLength` has room, from the innermost. 0 with one stage.
 */
export function lengthWithAllSteps(strides: readonly number[], maxLength = Number.POSITIVE_INFINITY): number {
  let length = 0;
  for (let stage = strides.length - 2; stage >= 0; stage--) {
    if (length + strides[stage]! < maxLength) length += strides[stage]!;
  }
  return length;
}

/** As much of a run as a call may take, which makes at most `maxSteps` steps. */
export function firstOf({ stage, patches, steps }: PatchRun, maxSteps: number): PatchRun {
  return steps <= maxSteps ? { stage, patches, steps } : { stage, patches: maxSteps, steps: maxSteps };
}

/** Steps that the stage makes before its parent's patch is complete: the last one completes it and is the parent's. */
function stepsBeforeParent(length: number, stage: number, strides: readonly number[]): number {
  if (stage === 0) return Number.POSITIVE_INFINITY;
  const parent = strides[stage - 1]!;
  return (parent - (length % parent)) / strides[stage]! - 1;
}

/**
 * What can be scored next: whole local patches, side by side, and the steps of the local stage's parent among them. At
 * least one id is left, as for `nextPrefill`. Undefined when no whole patch is, inside a patch, or with one stage.
 */
export function nextScoring(
  length: number,
  total: number,
  maxPatches: number,
  strides: readonly number[],
): PatchRun | undefined {
  const parent = strides.length - 2;
  const patch = strides[parent];
  if (patch === undefined || length % patch !== 0) return undefined;
  const beforeOuter = stepsBeforeParent(length, parent, strides);
  const patches = Math.min(Math.floor((total - 1 - length) / patch), beforeOuter + 1, maxPatches);
  if (patches <= 0) return undefined;
  return { stage: parent, patches, steps: Math.min(patches, beforeOuter) };
}
