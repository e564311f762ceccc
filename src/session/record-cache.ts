import { recordBytes, type SessionRecord } from "./session.js";

interface Cached {
  readonly version: string;
  readonly record: SessionRecord;
}

/** Records that were read or written lately, least recently used first out. */
export class RecordCache {
  readonly #cached = new Map<string, Cached>();
  #bytes = 0;

  constructor(private readonly maxBytes: number) {}

  get length(): number {
    return this.#cached.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The record, if this very version is known. */
  find(id: string, version: string): SessionRecord | undefined {
    const cached = this.#cached.get(id);
    if (cached?.version !== version) return undefined;
    this.#cached.delete(id);
    this.#cached.set(id, cached);
    return cached.record;
  }

  keep(id: string, version: string, record: SessionRecord): void {
    this.drop(id);
    this.#cached.set(id, { version, record });
    this.#bytes += recordBytes(record);
    for (const oldest of this.#cached.keys()) {
      if (this.#bytes <= this.maxBytes) return;
      this.drop(oldest);
    }
  }

  drop(id: string): void {
    const cached = this.#cached.get(id);
    if (cached === undefined) return;
    this.#cached.delete(id);
    this.#bytes -= recordBytes(cached.record);
  }
}
