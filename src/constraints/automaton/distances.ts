import { DEAD, type Dfa } from "./dfa.js";
import { groupByKey } from "./grouping.js";

/** Distance of a state that can reach no accepting one. */
export const UNREACHABLE = 0xffff_ffff;

/** Transition i leads from tails[i] to heads[i] with labels[i], a byte class; ordered by tail, then label. */
export interface Transitions {
  readonly tails: Int32Array;
  readonly heads: Int32Array;
  readonly labels: Int32Array;
}

export function listTransitions({ numStates, numClasses, next }: Dfa): Transitions {
  let count = 0;
  for (let entry = 0; entry < numStates * numClasses; entry++) if (next[entry] !== DEAD) count++;
  const tails = new Int32Array(count);
  const heads = new Int32Array(count);
  const labels = new Int32Array(count);
  let i = 0;
  for (let state = 0; state < numStates; state++) {
    for (let byteClass = 0; byteClass < numClasses; byteClass++) {
      const head = next[state * numClasses + byteClass]!;
      if (head === DEAD) continue;
      tails[i] = state;
      heads[i] = head;
      labels[i++] = byteClass;
    }
  }
  return { tails, heads, labels };
}

/** Fewest bytes from each state to an accepting one, or UNREACHABLE: a search against the transitions. numStates */
export function measureDistances(accepting: Uint8Array, { tails, heads }: Transitions): Uint32Array {
  const numStates = accepting.length;
  const incoming = groupByKey(heads, numStates);
  const distances = new Uint32Array(numStates).fill(UNREACHABLE);
  const queue: number[] = [];
  for (let state = 0; state < numStates; state++) {
    if (accepting[state] === 0) continue;
    distances[state] = 0;
    queue.push(state);
  }
  for (const state of queue) {
    for (let i = incoming.starts[state]!; i < incoming.starts[state + 1]!; i++) {
      const tail = tails[incoming.order[i]!]!;
      if (distances[tail] !== UNREACHABLE) continue;
      distances[tail] = distances[state]! + 1;
      queue.push(tail);
    }
  }
  return distances;
}
