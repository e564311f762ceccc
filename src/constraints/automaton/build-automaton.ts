import { type ByteAutomaton, NO_STATE } from "../../core/byte-automaton.js";
import type { CompileBudget } from "../compile-budget.js";
import type { Ir } from "../ir.js";
import { buildAlphabet } from "./byte-alphabet.js";
import { DEAD, type Dfa } from "./dfa.js";
import { listTransitions, measureDistances } from "./distances.js";
import { mergeClasses } from "./merge-classes.js";
import { mergeStates } from "./merge-states.js";
import { groupEquivalentStates } from "./minimize.js";
import { buildNfa } from "./nfa.js";
import { determinize } from "./subset-construction.js";
import { keepLiveStates } from "./transition-graph.js";

/**
 * The smallest automaton of a language, its states and classes in a canonical order: equal languages give equal arrays.
 *
 * @param allowed bytes that may occur, all when undefined; the others are taken out of the language
 * @throws MblmError `invalid_request` when the language is empty or a budget is exceeded
 */
export function buildAutomaton(ir: Ir, budget: CompileBudget, allowed: ReadonlySet<number> | undefined): ByteAutomaton {
  const nfa = buildNfa(ir, budget);
  const alphabet = buildAlphabet(nfa.sets, allowed, budget);
  const graph = keepLiveStates(determinize(nfa, alphabet, budget));
  if (graph.numStates === 0) budget.refuse("no output can match");
  return share(mergeClasses(mergeStates(graph, groupEquivalentStates(graph))));
}

function share(dfa: Dfa): ByteAutomaton {
  const { numStates, numClasses } = dfa;
  const next = new Uint16Array(new SharedArrayBuffer(2 * numStates * numClasses));
  for (let entry = 0; entry < next.length; entry++)
    next[entry] = dfa.next[entry] === DEAD ? NO_STATE : dfa.next[entry]!;
  const classes = new Uint8Array(new SharedArrayBuffer(256));
  classes.set(dfa.classes);
  const accepting = new Uint8Array(new SharedArrayBuffer(numStates));
  accepting.set(dfa.accepting);
  const distance = new Uint32Array(new SharedArrayBuffer(4 * numStates));
  distance.set(measureDistances(dfa.accepting, listTransitions(dfa)));
  return { numStates, numClasses, classes, next, accepting, distance };
}
