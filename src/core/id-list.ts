/** A list of ids that grows: two bytes each. */
export class IdList {
  #ids = new Uint16Array(64);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const larger = new Uint16Array(2 * this.#length);
      larger.set(this.#ids);
      this.#ids = larger;
    }
    this.#ids[this.#length++] = id;
  }

  /** A view of the first `count` ids, valid until the next `push`. */
  first(count: number): Uint16Array {
    return this.#ids.subarray(0, count);
  }

  /** Forgets the `count` latest ids. */
  dropLast(count: number): void {
    this.#length -= count;
  }

  /** Removes the `count` oldest ids and returns them. */
  takeFirst(count: number): Uint16Array {
    const ids = this.#ids.slice(0, count);
    this.#ids.copyWithin(0, count, this.#length);
    this.#length -= count;
    return ids;
  }
}
