import type { Dfa } from "./dfa.js";

/** The same automaton with one class for all bytes that no state tells apart. Classes are numbered by lowest byte. */
export function mergeClasses(dfa: Dfa): Dfa {
  const { numStates, numClasses, next } = dfa;
  const hashes = hashColumns(dfa);
  const isSame = (a: number, b: number): boolean => {
    if (hashes[a] !== hashes[b]) return false;
    for (let state = 0; state < numStates; state++) {
      if (next[state * numClasses + a] !== next[state * numClasses + b]) return false;
    }
    return true;
  };
  const kept: number[] = []; // by new class: an old class that stands for it
  const numbers = new Uint8Array(numClasses); // by old class
  for (let old = 0; old < numClasses; old++) {
    const known = kept.findIndex((column) => isSame(column, old));
    numbers[old] = known === -1 ? kept.push(old) - 1 : known;
  }
  const merged = new Int32Array(numStates * kept.length);
  for (let entry = 0, state = 0; state < numStates; state++) {
    for (const column of kept) merged[entry++] = next[state * numClasses + column]!;
  }
  return { ...dfa, numClasses: kept.length, classes: dfa.classes.map((old) => numbers[old]!), next: merged };
}

/** A hash of each class's transitions: comparing many columns in full could take long. */
function hashColumns({ numStates, numClasses, next }: Dfa): Int32Array {
  const hashes = new Int32Array(numClasses);
  for (let state = 0; state < numStates; state++) {
    for (let byteClass = 0; byteClass < numClasses; byteClass++) {
      hashes[byteClass] = Math.imul(hashes[byteClass]! ^ next[state * numClasses + byteClass]!, 0x01000193);
    }
  }
  return hashes;
}
