/** Bytes at which a batch takes no more: what the model is fed at once. */
const FULL_BYTES = 65_536;

/** Pushes that wait one behind the other, as one: however small they are, they take no more than their bytes. */
export class PushBatch {
  #buffer: Uint8Array;
  #length: number;
  #numFrames = 1;

  constructor(first: Uint8Array) {
    this.#buffer = Uint8Array.from(first);
    this.#length = first.length;
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Bytes in it. */
  get length(): number {
    return this.#length;
  }

  get numFrames(): number {
    return this.#numFrames;
  }

  /** Returns whether there was room. */
  add(payload: Uint8Array): boolean {
    const length = this.#length + payload.length;
    if (length > FULL_BYTES) return false;
    if (length > this.#buffer.length) {
      const larger = new Uint8Array(Math.min(FULL_BYTES, Math.max(length, 2 * this.#buffer.length)));
      larger.set(this.bytes);
      this.#buffer = larger;
    }
    this.#buffer.set(payload, this.#length);
    this.#length = length;
    this.#numFrames++;
    return true;
  }
}
