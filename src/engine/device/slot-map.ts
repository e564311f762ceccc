/** Which place in a device's memory belongs to which slot: moving a sequence moves a number, not its state. */
export class SlotMap {
  readonly #places: Int32Array;

  constructor(numSlots: number) {
    this.#places = Int32Array.from({ length: numSlots }, (_, slot) => slot);
  }

  placeOf(slot: number): number {
    return this.#places[slot]!;
  }

  swap(a: number, b: number): void {
    const place = this.#places[a]!;
    this.#places[a] = this.#places[b]!;
    this.#places[b] = place;
  }
}
