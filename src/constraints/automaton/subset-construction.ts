import type { CompileBudget } from "../compile-budget.js";
import { MAX_DFA_STATES } from "../limits.js";
import type { ByteAlphabet } from "./byte-alphabet.js";
import { DEAD, type Dfa } from "./dfa.js";
import { EPSILON, FINAL, type Nfa, NO_NODE } from "./nfa.js";
import { StateSets } from "./state-sets.js";
import { TargetLists } from "./target-lists.js";

const UNKNOWN = -2;

/** Steps charged for keeping a node of a set in order. */
const STEPS_PER_SORTED_NODE = 3;

/**
 * The deterministic automaton whose states are the sets of NFA nodes that one input can lead to.
 *
 * @throws MblmError `invalid_request` when it has too many states or takes too much work
 */
export function determinize(nfa: Nfa, alphabet: ByteAlphabet, budget: CompileBudget): Dfa {
  return new SubsetConstruction(nfa, alphabet, budget).run();
}

class SubsetConstruction {
  readonly #nfa: Nfa;
  readonly #alphabet: ByteAlphabet;
  readonly #budget: CompileBudget;
  /** State s is the sorted set s of byte-consuming nodes and FINAL. */
  readonly #sets = new StateSets();
  /** State that one node alone leads to, or UNKNOWN: most transitions have a single target. */
  readonly #stateOfNode: Int32Array;
  /** Targets of the current state by class, before closure. */
  readonly #targets: TargetLists;
  /** Run of `#close` that visited the node last. */
  readonly #visited: Int32Array;
  readonly #closure: Int32Array;
  readonly #stack: number[] = [];
  #numRuns = 0;
  #next = new Int32Array(0);

  constructor(nfa: Nfa, alphabet: ByteAlphabet, budget: CompileBudget) {
    this.#nfa = nfa;
    this.#alphabet = alphabet;
    this.#budget = budget;
    this.#stateOfNode = new Int32Array(nfa.numNodes).fill(UNKNOWN);
    this.#visited = new Int32Array(nfa.numNodes);
    this.#closure = new Int32Array(nfa.numNodes);
    this.#targets = new TargetLists(alphabet.numClasses);
  }

  run(): Dfa {
    this.#stateOf(Int32Array.of(this.#nfa.start), 1);
    for (let state = 0; state < this.#sets.count; state++) this.#expand(state);
    const numStates = this.#sets.count;
    const accepting = new Uint8Array(numStates);
    for (let state = 0; state < numStates; state++) {
      // FINAL is the lowest node, so it comes first in a sorted set.
      accepting[state] = this.#sets.item(this.#sets.start(state)) === FINAL ? 1 : 0;
    }
    const { numClasses, classes } = this.#alphabet;
    return { numStates, numClasses, classes, next: this.#next, accepting };
  }

  /** Fills the row of transitions of a state. */
  #expand(state: number): void {
    const { numClasses } = this.#alphabet;
    const row = state * numClasses;
    this.#budget.spend(numClasses);
    this.#reserve(row + numClasses);
    this.#gatherTargets(state);
    for (let byteClass = 0; byteClass < numClasses; byteClass++) {
      // Neighbouring classes often lead to the same nodes.
      const isKnown = byteClass > 0 && this.#targets.areEqual(byteClass, byteClass - 1);
      this.#next[row + byteClass] = isKnown ? this.#next[row + byteClass - 1]! : this.#stateAfter(byteClass);
    }
  }

  #gatherTargets(state: number): void {
    const { setOf, out1 } = this.#nfa;
    this.#targets.clear();
    const end = this.#sets.end(state);
    for (let i = this.#sets.start(state); i < end; i++) {
      const node = this.#sets.item(i);
      if (node === FINAL) continue;
      const target = out1[node]!;
      const classes = this.#alphabet.classesOfSet[setOf[node]!]!;
      for (let j = 0; j < classes.length; j++) this.#targets.push(classes[j]!, target);
      this.#budget.spend(classes.length);
    }
  }

  /** The state that the targets of a class make up, or DEAD. */
  #stateAfter(byteClass: number): number {
    const length = this.#targets.lengths[byteClass]!;
    if (length === 0) return DEAD;
    const nodes = this.#targets.list(byteClass);
    if (length > 1) return this.#stateOf(nodes, length);
    const node = nodes[0]!;
    if (this.#stateOfNode[node] === UNKNOWN) this.#stateOfNode[node] = this.#stateOf(nodes, 1);
    return this.#stateOfNode[node]!;
  }

  /** The state of all that can be reached from the nodes without input, or DEAD; a new one when it is not known yet. */
  #stateOf(nodes: Int32Array, length: number): number {
    const size = this.#close(nodes, length);
    if (size === 0) return DEAD;
    const state = this.#sets.intern(this.#closure, size);
    this.#budget.check(this.#sets.count, MAX_DFA_STATES, "states of the automaton");
    return state;
  }

  /** Writes the byte-consuming nodes and FINAL reachable without input into `#closure`, sorted; returns how many. */
  #close(nodes: Int32Array, length: number): number {
    const { setOf, out1, out2 } = this.#nfa;
    const run = ++this.#numRuns;
    const stack = this.#stack;
    let size = 0;
    for (let i = 0; i < length; i++) stack.push(nodes[i]!);
    let numVisits = 0;
    while (stack.length > 0) {
      const node = stack.pop()!;
      numVisits++;
      if (node === NO_NODE || this.#visited[node] === run) continue;
      this.#visited[node] = run;
      if (setOf[node] !== EPSILON || node === FINAL) this.#closure[size++] = node;
      else stack.push(out1[node]!, out2[node]!);
    }
    this.#budget.spend(numVisits + STEPS_PER_SORTED_NODE * size);
    sortPrefix(this.#closure, size);
    return size;
  }

  #reserve(length: number): void {
    if (length <= this.#next.length) return;
    const larger = new Int32Array(2 * length);
    larger.set(this.#next);
    this.#next = larger;
  }
}

/** Sorts the first `size` numbers. Most sets are tiny, and then a call of the built-in sort takes longer than this. */
function sortPrefix(numbers: Int32Array, size: number): void {
  if (size > 12) {
    numbers.subarray(0, size).sort();
    return;
  }
  for (let i = 1; i < size; i++) {
    const value = numbers[i]!;
    let place = i;
    for (; place > 0 && numbers[place - 1]! > value; place--) numbers[place] = numbers[place - 1]!;
    numbers[place] = value;
  }
}
