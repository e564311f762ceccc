/**
 * A partition of 0 … n − 1 whose blocks are split into marked and unmarked elements, in time proportional to the marked
 * ones. After A. Valmari, "Fast brief practical DFA minimization", Information Processing Letters 112 (2012).
 */
export class RefinablePartition {
  /** Elements, those of a block side by side, its marked ones first. */
  readonly #elements: Int32Array;
  /** Place of each element in `#elements`. */
  readonly #places: Int32Array;
  readonly #blockOf: Int32Array;
  /** First place of each block, and the place after its last. */
  readonly #firsts: Int32Array;
  readonly #ends: Int32Array;
  readonly #numMarked: Int32Array;
  /** Blocks with marked elements. */
  readonly #touched: number[] = [];
  #numBlocks: number;

  /**
   * @param order all elements, those of an initial block side by side
   * @param starts place of the first element of each initial block, then the number of elements; no block is empty
   */
  constructor(order: Int32Array, starts: readonly number[]) {
    this.#elements = order.slice();
    this.#places = new Int32Array(order.length);
    this.#blockOf = new Int32Array(order.length);
    this.#firsts = new Int32Array(order.length);
    this.#ends = new Int32Array(order.length);
    this.#numMarked = new Int32Array(order.length);
    this.#numBlocks = starts.length - 1;
    for (let block = 0; block < this.#numBlocks; block++) {
      this.#firsts[block] = starts[block]!;
      this.#ends[block] = starts[block + 1]!;
      for (let place = starts[block]!; place < starts[block + 1]!; place++) {
        this.#places[order[place]!] = place;
        this.#blockOf[order[place]!] = block;
      }
    }
  }

  get numBlocks(): number {
    return this.#numBlocks;
  }

  blockOf(element: number): number {
    return this.#blockOf[element]!;
  }

  /** Calls `visit` with each element of a block. It must not mark elements of this partition. */
  forEach(block: number, visit: (element: number) => void): void {
    const end = this.#ends[block]!;
    for (let place = this.#firsts[block]!; place < end; place++) visit(this.#elements[place]!);
  }

  /** Marks an element that is not marked yet. */
  mark(element: number): void {
    const block = this.#blockOf[element]!;
    const place = this.#places[element]!;
    const target = this.#firsts[block]! + this.#numMarked[block]!;
    const displaced = this.#elements[target]!;
    this.#elements[place] = displaced;
    this.#places[displaced] = place;
    this.#elements[target] = element;
    this.#places[element] = target;
    if (this.#numMarked[block]!++ === 0) this.#touched.push(block);
  }

  /** Splits every block of which a part is marked, the smaller part becoming a new block; removes all marks. */
  split(): void {
    for (const block of this.#touched) {
      const first = this.#firsts[block]!;
      const end = this.#ends[block]!;
      const middle = first + this.#numMarked[block]!;
      this.#numMarked[block] = 0;
      if (middle === end) continue;
      const fresh = this.#numBlocks++;
      const isMarkedSmaller = middle - first <= end - middle;
      this.#firsts[fresh] = isMarkedSmaller ? first : middle;
      this.#ends[fresh] = isMarkedSmaller ? middle : end;
      if (isMarkedSmaller) this.#firsts[block] = middle;
      else this.#ends[block] = middle;
      const freshEnd = this.#ends[fresh]!;
      for (let place = this.#firsts[fresh]!; place < freshEnd; place++) this.#blockOf[this.#elements[place]!] = fresh;
    }
    this.#touched.length = 0;
  }
}
