import { misfit, type SequenceState } from "../core/state-snapshot.js";
import { MblmError } from "../errors.js";
import type { SequenceRunner } from "./model-runner-interface.js";

/** @throws MblmError `invalid_request` when the model cannot go on from the state */
export function requireUsable(state: SequenceState, runner: SequenceRunner): void {
  const problem = misfit(state, runner.info) ?? (fits(state, runner) ? undefined : "does not fit this model");
  if (problem !== undefined) throw new MblmError("invalid_request", `The state to go on from ${problem}.`);
}

function fits({ snapshot, tail, seen, logits }: SequenceState, runner: SequenceRunner): boolean {
  const { numStages, vocabularySize } = runner.info;
  const isOpen =
    tail.length > 0
      ? logits === undefined
      : numStages === 1 && logits?.length === vocabularySize && logits.every(Number.isFinite);
  return isOpen && seen.length === vocabularySize && runner.fits(snapshot);
}
