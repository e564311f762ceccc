/** A frame, as it goes out. */
export type OutFrame = string | Uint8Array<ArrayBuffer>;

/** Frames that the server may not have carried out yet, numbered from 1 on for all time. */
export class SentFrames {
  readonly #frames: OutFrame[] = [];
  #numBytes = 0;
  #wake: (() => void)[] = [];

  /** @param done frames carried out so far */
  constructor(private done: number) {}

  /** Bytes pushed that are not acknowledged. */
  get numBytes(): number {
    return this.#numBytes;
  }

  /** Returns its number. */
  add(frame: OutFrame): number {
    this.#frames.push(frame);
    this.#numBytes += sizeOf(frame);
    return this.done + this.#frames.length;
  }

  /** The first `count` frames are carried out. */
  acknowledge(count: number): void {
    if (count <= this.done) return;
    for (const frame of this.#frames.splice(0, count - this.done)) this.#numBytes -= sizeOf(frame);
    this.done = count;
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** Resolves when something was acknowledged. */
  acknowledged(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake.push(resolve);
    });
  }

  /** Lets go of everybody who waits. */
  wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** Frames after the first `count`; undefined when some of them are gone already. */
  after(count: number): OutFrame[] | undefined {
    return count < this.done ? undefined : this.#frames.slice(count - this.done);
  }
}

function sizeOf(frame: OutFrame): number {
  return typeof frame === "string" ? 0 : frame.length;
}
