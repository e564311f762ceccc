import type { ByteLogprobs } from "../core/generation-event.js";

/** Generated ids that the client has not been given yet, with their log-probs when asked for. */
export class OutputBuffer {
  #ids = new Uint16Array(64);
  #length = 0;
  readonly #logprobs: ByteLogprobs[] | undefined;

  constructor(hasLogprobs: boolean) {
    this.#logprobs = hasLogprobs ? [] : undefined;
  }

  get length(): number {
    return this.#length;
  }

  push(id: number, logprobs?: ByteLogprobs): void {
    if (this.#length === this.#ids.length) {
      const larger = new Uint16Array(2 * this.#length);
      larger.set(this.#ids);
      this.#ids = larger;
    }
    this.#ids[this.#length++] = id;
    if (logprobs !== undefined) this.#logprobs?.push(logprobs);
  }

  /** Forgets the `count` latest ids. */
  dropLast(count: number): void {
    this.#length -= count;
    this.#logprobs?.splice(this.#length);
  }

  /** Removes the `count` oldest ids and returns them. */
  takeFirst(count: number): { ids: Uint16Array; logprobs?: ByteLogprobs[] } {
    const ids = this.#ids.slice(0, count);
    this.#ids.copyWithin(0, count, this.#length);
    this.#length -= count;
    return this.#logprobs === undefined ? { ids } : { ids, logprobs: this.#logprobs.splice(0, count) };
  }
}
