/** One growing list of integers per byte class, emptied and refilled for every state without allocating. */
export class TargetLists {
  /** Length of each list. numClasses */
  readonly lengths: Int32Array;
  readonly #lists: Int32Array[];

  constructor(numClasses: number) {
    this.lengths = new Int32Array(numClasses);
    this.#lists = Array.from({ length: numClasses }, () => new Int32Array(8));
  }

  /** Storage of a list, of which the first `lengths[byteClass]` items count; valid until the next `push`. */
  list(byteClass: number): Int32Array {
    return this.#lists[byteClass]!;
  }

  clear(): void {
    this.lengths.fill(0);
  }

  push(byteClass: number, item: number): void {
    const length = this.lengths[byteClass]!++;
    let list = this.#lists[byteClass]!;
    if (length === list.length) {
      list = new Int32Array(2 * length);
      list.set(this.#lists[byteClass]!);
      this.#lists[byteClass] = list;
    }
    list[length] = item;
  }

  /** Whether two classes have the same items in the same order. */
  areEqual(a: number, b: number): boolean {
    const length = this.lengths[a]!;
    if (length !== this.lengths[b]) return false;
    const [listA, listB] = [this.#lists[a]!, this.#lists[b]!];
    for (let i = 0; i < length; i++) if (listA[i] !== listB[i]) return false;
    return true;
  }
}
