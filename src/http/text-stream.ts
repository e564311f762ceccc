/**
 * Ids → text, piece by piece: the concatenation equals decoding everything at once. Only an incomplete character at the
 * end is held back; invalid bytes become U+FFFD at once; ids above 255 have no text.
 */
export class TextStream {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  push(ids: Uint16Array): string {
    return this.#decoder.decode(Uint8Array.from(ids.filter((id) => id < 256)), { stream: true });
  }

  /** What is still held back, as replacement characters. */
  end(): string {
    return this.#decoder.decode();
  }
}
