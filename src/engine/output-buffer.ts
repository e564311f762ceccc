import type { ByteLogprobs } from "../core/generation-event.js";
import { IdList } from "../core/id-list.js";

/** Generated ids that the client has not been given yet, with their log-probs when asked for. */
export class OutputBuffer {
  readonly #ids = new IdList();
  readonly #logprobs: ByteLogprobs[] | undefined;

  constructor(hasLogprobs: boolean) {
    this.#logprobs = hasLogprobs ? [] : undefined;
  }

  get length(): number {
    return this.#ids.length;
  }

  push(id: number, logprobs?: ByteLogprobs): void {
    this.#ids.push(id);
    if (logprobs !== undefined) this.#logprobs?.push(logprobs);
  }

  copyIds(): Uint16Array {
    return this.#ids.first(this.length).slice();
  }

  /** Forgets the `count` latest ids. */
  dropLast(count: number): void {
    this.#ids.dropLast(count);
    this.#logprobs?.splice(this.#ids.length);
  }

  /** Removes the `count` oldest ids and returns them. */
  takeFirst(count: number): { ids: Uint16Array; logprobs?: ByteLogprobs[] } {
    const ids = this.#ids.takeFirst(count);
    return this.#logprobs === undefined ? { ids } : { ids, logprobs: this.#logprobs.splice(0, count) };
  }
}
