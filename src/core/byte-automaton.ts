/**
 * A deterministic automaton over bytes in which every state can still reach an accepting one. State 0 is the start.
 * Plain data in SharedArrayBuffers: it crosses threads without a copy.
 */
export interface ByteAutomaton {
  readonly numStates: number;
  readonly numClasses: number;
  /** byte → class. 256 */
  readonly classes: Uint8Array;
  /** `next[state · numClasses + class]`: the next state, or NO_STATE. */
  readonly next: Uint16Array;
  /** 1 = the bytes so far are a whole match. numStates */
  readonly accepting: Uint8Array;
  /** Fewest further bytes to an accepting state; 0 for accepting ones. numStates */
  readonly distance: Uint32Array;
}

export const NO_STATE = 65535;

/** The state after one more id; NO_STATE where no match goes on that way, as for every id above 255. */
export function nextState(automaton: ByteAutomaton, state: number, id: number): number {
  return id < 256 ? automaton.next[state * automaton.numClasses + automaton.classes[id]!]! : NO_STATE;
}
