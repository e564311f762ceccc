import { type ByteAutomaton, NO_STATE, nextState } from "../core/byte-automaton.js";
import type { OutputConstraint } from "../core/generation-request.js";

/**
 * Follows one output through its automaton and says which ids may come next, so that the output is a whole match when
 * generation ends, the length limit included: an id is allowed only if a match can still be completed within the limit.
 */
export class ConstraintCursor {
  readonly #automaton: ByteAutomaton;
  readonly #canEnd: boolean;
  #state: number;

  /** @param state of the automaton after the output so far */
  constructor(
    readonly constraint: OutputConstraint,
    state = 0,
  ) {
    this.#state = state;
    this.#automaton = constraint.automaton;
    this.#canEnd = constraint.endsAtMismatch;
  }

  /** The automaton's state after the output so far. */
  get state(): number {
    return this.#state;
  }

  /** Whether the output so far is a whole match. */
  get isMatch(): boolean {
    return this.#automaton.accepting[this.#state] === 1;
  }

  /**
   * Bans what must not come next.
   *
   * @param numLeft ids that may still be generated, this one included
   * @param mayEnd whether the output may end here if it is a match
   * @param endIds ids that end the output
   */
  apply(scores: Float64Array, numLeft: number, mayEnd: boolean, endIds: readonly number[]): void {
    const isEndAllowed = this.isMatch && mayEnd;
    for (let id = 0; id < scores.length; id++) {
      const next = nextState(this.#automaton, this.#state, id);
      const isAllowed = next === NO_STATE ? isEndAllowed && this.#canEnd : this.#fits(next, numLeft - 1);
      if (!isAllowed && !(isEndAllowed && endIds.includes(id))) scores[id] = -Infinity;
    }
  }

  /** Takes the id; false when it is no part of a match, which ends the output before it. */
  push(id: number): boolean {
    const next = nextState(this.#automaton, this.#state, id);
    if (next === NO_STATE) return false;
    this.#state = next;
    return true;
  }

  /** `complete`: no match goes on from here. `full`: none that fits into `numLeft` more ids. */
  end(numLeft: number): "complete" | "full" | undefined {
    if (!this.isMatch) return undefined;
    const { numClasses, next } = this.#automaton;
    let hasNext = false;
    for (let c = 0; c < numClasses; c++) {
      const state = next[this.#state * numClasses + c]!;
      if (state === NO_STATE) continue;
      if (this.#fits(state, numLeft - 1)) return undefined;
      hasNext = true;
    }
    return hasNext ? "full" : "complete";
  }

  #fits(state: number, numLeft: number): boolean {
    return this.#automaton.distance[state]! <= numLeft;
  }
}
