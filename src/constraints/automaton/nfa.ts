import type { CompileBudget } from "../compile-budget.js";
import type { ByteRange, BytesIr, Ir, RepeatIr, SeriesIr } from "../ir.js";
import { MAX_NFA_NODES } from "../limits.js";

/** Node at which a match is complete. It has no successor. */
export const FINAL = 0;
/** In `setOf`: the node consumes nothing and leads on to both `out1` and `out2`. */
export const EPSILON = -1;
/** In `out1` and `out2`: no successor. */
export const NO_NODE = -1;

/** A Thompson automaton over byte sets. */
export interface Nfa {
  readonly numNodes: number;
  readonly start: number;
  /** Index into `sets` of the bytes that lead from the node to `out1`, or EPSILON. numNodes */
  readonly setOf: Int32Array;
  /** numNodes */
  readonly out1: Int32Array;
  /** numNodes */
  readonly out2: Int32Array;
  /** The distinct byte sets. */
  readonly sets: readonly (readonly ByteRange[])[];
}

/**
 * Writes a language out as an automaton.
 *
 * @throws MblmError `invalid_request` when it takes more than `MAX_NFA_NODES` nodes
 */
export function buildNfa(ir: Ir, budget: CompileBudget): Nfa {
  budget.check(ir.numNodes, MAX_NFA_NODES, "states with all repetitions written out");
  return new NfaBuilder(ir.numNodes + 1).build(ir);
}

/** Builds from the end: each method takes the node to go on with and returns the one to begin with. */
class NfaBuilder {
  readonly #setOf: Int32Array;
  readonly #out1: Int32Array;
  readonly #out2: Int32Array;
  readonly #sets: (readonly ByteRange[])[] = [];
  readonly #setOfIr = new Map<BytesIr, number>();
  readonly #setOfKey = new Map<string, number>();
  #numNodes = 0;

  constructor(maxNodes: number) {
    this.#setOf = new Int32Array(maxNodes);
    this.#out1 = new Int32Array(maxNodes);
    this.#out2 = new Int32Array(maxNodes);
  }

  build(ir: Ir): Nfa {
    const final = this.#add(EPSILON, NO_NODE, NO_NODE);
    const start = this.#write(ir, final);
    return {
      numNodes: this.#numNodes,
      start,
      setOf: this.#setOf,
      out1: this.#out1,
      out2: this.#out2,
      sets: this.#sets,
    };
  }

  #write(ir: Ir, next: number): number {
    switch (ir.kind) {
      case "bytes":
        return this.#add(this.#internSet(ir), next, NO_NODE);
      case "concat":
        return ir.parts.reduceRight((after, part) => this.#write(part, after), next);
      case "alternate":
        return this.#writeAlternate(ir.options, next);
      case "repeat":
        return this.#writeRepeat(ir, next);
      case "series":
        return this.#writeSeries(ir, next);
    }
  }

  #writeAlternate(options: readonly Ir[], next: number): number {
    const starts = options.map((option) => this.#write(option, next));
    if (starts.length === 0) return this.#split(NO_NODE, NO_NODE);
    return starts.reduceRight((rest, start) => this.#split(start, rest));
  }

  #writeRepeat({ body, min, max, separator }: RepeatIr, next: number): number {
    if (max === 0) return next;
    const isEndless = max === Infinity;
    const numCopies = isEndless ? Math.max(min, 1) : max;
    // After the last copy: the end, or back to that copy. The way back is known once the copy is written.
    const last = isEndless ? this.#split(NO_NODE, next) : next;
    let start = this.#write(body, last);
    if (isEndless) this.#out1[last] = this.#write(separator, start);
    for (let copy = numCopies - 1; copy >= 1; copy--) {
      const another = this.#write(separator, start);
      start = this.#write(body, copy >= min ? this.#split(another, next) : another);
    }
    return min === 0 ? this.#split(start, next) : start;
  }

  #writeSeries({ items, separator }: SeriesIr, next: number): number {
    // Two ways through the items, with and without one present before, that share everything but the separators.
    let afterSome = next;
    let afterNone = next;
    for (const { ir, isRequired } of [...items].reverse()) {
      const item = this.#write(ir, afterSome);
      const separated = this.#write(separator, item);
      afterSome = isRequired ? separated : this.#split(separated, afterSome);
      afterNone = isRequired ? item : this.#split(item, afterNone);
    }
    return afterNone;
  }

  #split(out1: number, out2: number): number {
    return this.#add(EPSILON, out1, out2);
  }

  #add(set: number, out1: number, out2: number): number {
    const node = this.#numNodes++;
    this.#setOf[node] = set;
    this.#out1[node] = out1;
    this.#out2[node] = out2;
    return node;
  }

  #internSet(ir: BytesIr): number {
    const known = this.#setOfIr.get(ir);
    if (known !== undefined) return known;
    const key = ir.ranges.join(";");
    const set = this.#setOfKey.get(key) ?? this.#sets.push(ir.ranges) - 1;
    this.#setOfKey.set(key, set);
    this.#setOfIr.set(ir, set);
    return set;
  }
}
