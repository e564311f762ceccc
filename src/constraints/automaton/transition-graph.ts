import type { Dfa } from "./dfa.js";
import { listTransitions, measureDistances, type Transitions, UNREACHABLE } from "./distances.js";

/** A deterministic automaton as a list of transitions. State 0 is the start. */
export interface TransitionGraph extends Transitions {
  readonly numStates: number;
  readonly numClasses: number;
  /** Class of each byte. 256 */
  readonly classes: Uint8Array;
  /** 1 = accepting. numStates */
  readonly accepting: Uint8Array;
}

/** The states of `dfa` that can still reach an accepting one, with the transitions between them; none at all may be. */
export function keepLiveStates(dfa: Dfa): TransitionGraph {
  const { tails, heads, labels } = listTransitions(dfa);
  const distances = measureDistances(dfa.accepting, { tails, heads, labels });
  const numbers = new Int32Array(dfa.numStates).fill(-1); // new number of each live state
  let numStates = 0;
  for (let state = 0; state < dfa.numStates; state++) {
    if (distances[state] !== UNREACHABLE) numbers[state] = numStates++;
  }
  const kept = renumber({ tails, heads, labels }, numbers);
  const accepting = dfa.accepting.filter((_, state) => numbers[state] !== -1);
  return { ...kept, numStates, numClasses: dfa.numClasses, classes: dfa.classes, accepting };
}

/** The transitions between states with a number. One into a live state leaves a live state, so its head decides. */
function renumber({ tails, heads, labels }: Transitions, numbers: Int32Array): Transitions {
  const kept = { tails: tails.slice(), heads: heads.slice(), labels: labels.slice() };
  let count = 0;
  for (let i = 0; i < heads.length; i++) {
    const head = numbers[heads[i]!]!;
    if (head === -1) continue;
    kept.tails[count] = numbers[tails[i]!]!;
    kept.heads[count] = head;
    kept.labels[count++] = labels[i]!;
  }
  return {
    tails: kept.tails.subarray(0, count),
    heads: kept.heads.subarray(0, count),
    labels: kept.labels.subarray(0, count),
  };
}
