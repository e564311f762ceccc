import { type ByteAutomaton, NO_STATE, nextState } from "../../src/core/byte-automaton.js";
import type { Random } from "./random.js";

/** Whether the whole of the bytes is a match. */
export function accepts(automaton: ByteAutomaton, bytes: Uint8Array): boolean {
  let state = 0;
  for (const byte of bytes) {
    state = nextState(automaton, state, byte);
    if (state === NO_STATE) return false;
  }
  return automaton.accepting[state] === 1;
}

export function acceptsText(automaton: ByteAutomaton, text: string): boolean {
  return accepts(automaton, Buffer.from(text, "utf8"));
}

/**
 * A match: random bytes that some match goes on with, after `patience` of them only such as lead nearer to its end.
 * A class of bytes is drawn before a byte of it, or most bytes would be those of rare characters.
 */
export function walk(automaton: ByteAutomaton, random: Random, patience: number): Uint8Array {
  const bytes: number[] = [];
  for (let state = 0; ; ) {
    const isDue = bytes.length >= patience;
    const options = continuations(automaton, state).filter(
      ({ target }) => !isDue || automaton.distance[target]! < automaton.distance[state]!,
    );
    if (automaton.accepting[state] === 1 && (isDue || options.length === 0 || random.chance(0.2))) {
      return Uint8Array.from(bytes);
    }
    const { byteClass, target } = random.pick(options);
    bytes.push(random.pick(bytesOf(automaton, byteClass)));
    state = target;
  }
}

function continuations(automaton: ByteAutomaton, state: number): { byteClass: number; target: number }[] {
  const row = automaton.next.subarray(state * automaton.numClasses, (state + 1) * automaton.numClasses);
  return Array.from(row, (target, byteClass) => ({ byteClass, target })).filter(({ target }) => target !== NO_STATE);
}

function bytesOf(automaton: ByteAutomaton, byteClass: number): number[] {
  return Array.from(automaton.classes.keys()).filter((byte) => automaton.classes[byte] === byteClass);
}

/** Text of bytes that must be valid UTF-8. */
export function decode(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}
