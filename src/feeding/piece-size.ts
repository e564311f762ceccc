/** A piece takes the engine between these, where its bounds allow: reports and cancels come soon, and little is lost to taking turns. */
const LEAST_SECONDS = 0.1;
const MOST_SECONDS = 0.5;
const FIRST_BYTES = 65_536;
const MIN_BYTES = 4096;
const MAX_BYTES = 1 << 20;

/** Bytes of the next piece of an upload, by how long the last ones took. */
export class PieceSize {
  #bytes = FIRST_BYTES;

  get bytes(): number {
    return this.#bytes;
  }

  /** @param seconds that a piece of `bytes` took; shorter ones say nothing */
  observe(bytes: number, seconds: number): void {
    if (seconds > MOST_SECONDS) this.#bytes = Math.max(MIN_BYTES, this.#bytes / 2);
    else if (bytes === this.#bytes && seconds < LEAST_SECONDS) this.#bytes = Math.min(MAX_BYTES, 2 * this.#bytes);
  }
}
