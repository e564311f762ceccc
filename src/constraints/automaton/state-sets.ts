/** Numbers distinct lists of integers in the order of their first occurrence. Open addressing over one flat store. */
export class StateSets {
  #items = new Int32Array(1024);
  /** Start of each list in `#items`, then the end of the last. */
  readonly #starts: number[] = [0];
  readonly #hashes: number[] = [];
  #slots = new Int32Array(1024).fill(-1);

  get count(): number {
    return this.#hashes.length;
  }

  /** List `index` is made of the items `start(index)` … `end(index)` - 1. */
  start(index: number): number {
    return this.#starts[index]!;
  }

  end(index: number): number {
    return this.#starts[index + 1]!;
  }

  item(place: number): number {
    return this.#items[place]!;
  }

  /** Index of the list made of the first `length` items of `list`; the next free index when it is new. */
  intern(list: Int32Array, length: number): number {
    const hash = hashOf(list, length);
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (; this.#slots[slot] !== -1; slot = (slot + 1) & mask) {
      const index = this.#slots[slot]!;
      if (this.#hashes[index] === hash && this.#equals(index, list, length)) return index;
    }
    const index = this.count;
    this.#slots[slot] = index;
    this.#append(list, length, hash);
    if (2 * this.count > this.#slots.length) this.#rehash();
    return index;
  }

  #equals(index: number, list: Int32Array, length: number): boolean {
    const start = this.#starts[index]!;
    if (this.#starts[index + 1]! - start !== length) return false;
    for (let i = 0; i < length; i++) if (this.#items[start + i] !== list[i]) return false;
    return true;
  }

  #append(list: Int32Array, length: number, hash: number): void {
    const start = this.#starts[this.count]!;
    if (start + length > this.#items.length) {
      const larger = new Int32Array(2 * (start + length));
      larger.set(this.#items);
      this.#items = larger;
    }
    for (let i = 0; i < length; i++) this.#items[start + i] = list[i]!;
    this.#starts.push(start + length);
    this.#hashes.push(hash);
  }

  #rehash(): void {
    this.#slots = new Int32Array(2 * this.#slots.length).fill(-1);
    const mask = this.#slots.length - 1;
    for (let index = 0; index < this.count; index++) {
      let slot = this.#hashes[index]! & mask;
      while (this.#slots[slot] !== -1) slot = (slot + 1) & mask;
      this.#slots[slot] = index;
    }
  }
}

/** Unsigned 32 bits: FNV-1a over whole integers, with a final mix because slots use the low bits. */
function hashOf(list: Int32Array, length: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ list[i]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}
