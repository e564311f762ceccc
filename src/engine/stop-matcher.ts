/**
 * Follows one output, id by id, and says when it ends with a stop sequence and how much of it must be held back because
 * it could still become part of one. Every sequence is followed by its own Knuth–Morris–Pratt automaton, so overlaps of
 * a sequence with itself and with others are exact, at constant amortised cost per id.
 */
export class StopMatcher {
  readonly #automata: readonly StopAutomaton[];

  /** @param stopSequences each non-empty; none = nothing ever matches and nothing is held back */
  constructor(stopSequences: readonly Uint8Array[]) {
    this.#automata = stopSequences.map((sequence) => new StopAutomaton(sequence));
  }

  /**
   * Takes the next id (256 and above match no byte).
   *
   * @param canMatch false while stop conditions do not apply yet; the id still counts as context of later ones
   * @returns the stop sequence that the output now ends with, the longest if several do
   */
  push(id: number, canMatch = true): Uint8Array | undefined {
    let longest: Uint8Array | undefined;
    for (const automaton of this.#automata) {
      const isComplete = automaton.push(id);
      if (isComplete && canMatch && automaton.sequence.length > (longest?.length ?? 0)) longest = automaton.sequence;
    }
    return longest;
  }

  /** Length of the longest suffix of the output that is a proper prefix of a stop sequence. */
  get numHeld(): number {
    let longest = 0;
    for (const automaton of this.#automata) longest = Math.max(longest, automaton.numMatched);
    return longest;
  }
}

class StopAutomaton {
  /** borders[n] = length of the longest proper prefix of the first n bytes that is also their suffix. */
  readonly #borders: Uint32Array;
  #numMatched = 0;

  constructor(readonly sequence: Uint8Array) {
    this.#borders = computeBorders(sequence);
  }

  /** Bytes of the sequence that the output currently ends with; always less than its length. */
  get numMatched(): number {
    return this.#numMatched;
  }

  /** Returns whether the sequence is now complete; it then goes on as if looking for its next occurrence. */
  push(id: number): boolean {
    let matched = this.#numMatched;
    while (matched > 0 && this.sequence[matched] !== id) matched = this.#borders[matched]!;
    if (this.sequence[matched] === id) matched++;
    const isComplete = matched === this.sequence.length;
    this.#numMatched = isComplete ? this.#borders[matched]! : matched;
    return isComplete;
  }
}

function computeBorders(sequence: Uint8Array): Uint32Array {
  const borders = new Uint32Array(sequence.length + 1);
  let border = 0;
  for (let length = 2; length <= sequence.length; length++) {
    const byte = sequence[length - 1]!;
    while (border > 0 && sequence[border] !== byte) border = borders[border]!;
    if (sequence[border] === byte) border++;
    borders[length] = border;
  }
  return borders;
}
