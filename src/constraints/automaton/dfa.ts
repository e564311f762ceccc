/** In `Dfa.next`: no transition. */
export const DEAD = -1;

/** A deterministic automaton while it is worked on. State 0 is the start; every state is reachable from it. */
export interface Dfa {
  readonly numStates: number;
  readonly numClasses: number;
  /** Class of each byte. 256 */
  readonly classes: Uint8Array;
  /** next[state * numClasses + class] = next state, or DEAD. At least numStates × numClasses */
  readonly next: Int32Array;
  /** 1 = accepting. At least numStates */
  readonly accepting: Uint8Array;
}
