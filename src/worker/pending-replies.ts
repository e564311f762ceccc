interface Pending<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** Questions that were sent with an id and whose answers carry the same id. */
export class PendingReplies<T> {
  readonly #pending = new Map<number, Pending<T>>();
  #nextId = 0;

  /** @param send sends the question under the given id */
  request(send: (id: number) => void): Promise<T> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      send(id);
    });
  }

  resolve(id: number, value: T): void {
    this.#pending.get(id)?.resolve(value);
    this.#pending.delete(id);
  }

  rejectAll(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
