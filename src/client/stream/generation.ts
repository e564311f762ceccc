import { Queue } from "./queue.js";
import type { GenerationResult } from "./stream-options.js";

/** Bytes as they are generated. Leaving a `for await` over them cancels the rest. */
export class Generation implements AsyncIterable<Uint8Array<ArrayBuffer>, void, undefined> {
  readonly #pieces = new Queue<Uint8Array<ArrayBuffer>>();
  /** Bytes that have come and not been read. */
  #unread = 0;
  /** Whether bytes count as read when they come: it ends soon, and its end follows bytes that the server has made already. */
  #isEnding = false;
  #isDiscarded = false;
  /** Whether its end has come; pieces may still be unread. */
  #hasEnded = false;
  #resolve: (result: GenerationResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  /** What is known at the end. */
  readonly result: Promise<GenerationResult>;

  /** Made by `ByteStream.generate`. */
  constructor(
    private readonly onCancel: () => void,
    private readonly onRead: (numBytes: number) => void,
  ) {
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.result.catch(() => {}); // whoever reads the bytes learns it as well
  }

  /** Ends it where it is; what was generated is part of the context. */
  cancel(): void {
    if (!this.#hasEnded) this.onCancel(); // else it would meet those that were asked for later
    this.letEnd();
  }

  /** @internal It was cancelled: what is left of it does not wait for its reader. */
  letEnd(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.onRead(this.#unread);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    let isOver = false;
    try {
      for (;;) {
        const piece = await this.#pieces.next();
        isOver = piece === undefined;
        if (piece === undefined) return;
        this.#unread -= piece.length;
        if (!this.#isEnding) this.onRead(piece.length);
        yield piece;
      }
    } catch (error) {
      isOver = true;
      throw error;
    } finally {
      if (!isOver) {
        this.#isDiscarded = true;
        this.cancel();
      }
    }
  }

  /** All bytes, when it has ended. */
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for await (const piece of this) pieces.push(piece);
    const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
    let offset = 0;
    for (const piece of pieces) {
      whole.set(piece, offset);
      offset += piece.length;
    }
    return whole;
  }

  /** @internal */
  push(piece: Uint8Array<ArrayBuffer>): void {
    if (this.#isEnding) this.onRead(piece.length);
    if (this.#isDiscarded) return;
    this.#unread += piece.length;
    this.#pieces.push(piece);
  }

  /** @internal */
  finish(result: GenerationResult): void {
    this.#hasEnded = true;
    this.#resolve(result);
    this.#pieces.end();
  }

  /** @internal */
  fail(error: unknown): void {
    this.#hasEnded = true;
    this.#reject(error);
    this.#pieces.end(error);
  }
}
