import { DEAD, type Dfa } from "./dfa.js";
import { groupByKey } from "./grouping.js";
import type { RefinablePartition } from "./refinable-partition.js";
import type { TransitionGraph } from "./transition-graph.js";

/** The automaton whose states are the blocks, numbered breadth-first from the start along ascending byte classes. */
export function mergeStates(graph: TransitionGraph, blocks: RefinablePartition): Dfa {
  const { numClasses, classes, tails, heads, labels } = graph;
  const numStates = blocks.numBlocks;
  const outgoing = groupByKey(tails, graph.numStates);
  const numbers = new Int32Array(numStates).fill(-1); // by block
  const members: number[] = []; // by number: any state of the block stands for all
  const numberOf = (state: number): number => {
    const block = blocks.blockOf(state);
    if (numbers[block] === -1) numbers[block] = members.push(state) - 1;
    return numbers[block]!;
  };
  const next = new Int32Array(numStates * numClasses).fill(DEAD);
  const accepting = new Uint8Array(numStates);
  numberOf(0);
  for (let number = 0; number < members.length; number++) {
    const state = members[number]!;
    accepting[number] = graph.accepting[state]!;
    for (let i = outgoing.starts[state]!; i < outgoing.starts[state + 1]!; i++) {
      const transition = outgoing.order[i]!;
      next[number * numClasses + labels[transition]!] = numberOf(heads[transition]!);
    }
  }
  return { numStates, numClasses, classes, next, accepting };
}
