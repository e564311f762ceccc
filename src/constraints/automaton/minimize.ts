import { groupByKey } from "./grouping.js";
import { RefinablePartition } from "./refinable-partition.js";
import type { TransitionGraph } from "./transition-graph.js";

/**
 * Groups states that accept the same continuations: Hopcroft's algorithm in Valmari's form, which takes O(m log m) for
 * m transitions, whatever the alphabet. Every state of `graph` must be able to reach an accepting one.
 */
export function groupEquivalentStates(graph: TransitionGraph): RefinablePartition {
  const { numStates, tails, heads } = graph;
  const states = initialStates(graph);
  const transitions = initialTransitions(graph);
  const incoming = groupByKey(heads, numStates);

  const markTail = (transition: number): void => states.mark(tails[transition]!);
  const markIncoming = (state: number): void => {
    const end = incoming.starts[state + 1]!;
    for (let i = incoming.starts[state]!; i < end; i++) transitions.mark(incoming.order[i]!);
  };

  let numStateBlocksUsed = 1; // one block of states need not be used as a splitter
  for (let used = 0; used < transitions.numBlocks; used++) {
    transitions.forEach(used, markTail);
    states.split();
    for (; numStateBlocksUsed < states.numBlocks; numStateBlocksUsed++) {
      states.forEach(numStateBlocksUsed, markIncoming);
      transitions.split();
    }
  }
  return states;
}

/** Accepting and other states. */
function initialStates({ numStates, accepting }: TransitionGraph): RefinablePartition {
  const { starts, order } = groupByKey(Int32Array.from(accepting), 2);
  return new RefinablePartition(order, distinctStarts(starts, numStates));
}

/** Transitions by byte class. */
function initialTransitions({ labels, numClasses }: TransitionGraph): RefinablePartition {
  const { starts, order } = groupByKey(labels, numClasses);
  return new RefinablePartition(order, distinctStarts(starts, labels.length));
}

/** Starts of the groups that are not empty, then the total. */
function distinctStarts(starts: Int32Array, total: number): number[] {
  return [...new Set(starts.subarray(0, -1))].filter((start) => start < total).concat([total]);
}
