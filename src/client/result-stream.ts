import { CallScope } from "./call-scope.js";

/** Reads the pieces of one answer within a scope; returns what is known at the end. */
export type StreamSource<T, R> = (scope: CallScope) => AsyncGenerator<T, R, void>;

/**
 * An answer that comes in pieces. The request is sent when the first piece is asked for. It can be read once: by
 * `for await`, where leaving the loop cancels it, or as a `ReadableStream`.
 */
export class ResultStream<T, R> implements AsyncIterable<T, void, undefined> {
  readonly #source: StreamSource<T, R>;
  readonly #makeScope: () => CallScope;
  #isStarted = false;
  #result: R | undefined;

  /** Made by the client's methods. */
  constructor(source: StreamSource<T, R>, signal: AbortSignal | undefined, timeoutMs: number | undefined) {
    this.#source = source;
    this.#makeScope = () => new CallScope(signal, timeoutMs);
  }

  /** What is known at the end; undefined until all pieces have been read, and for ever if that fails. */
  get result(): R | undefined {
    return this.#result;
  }

  /** @throws TypeError when the stream is being read, or has been */
  [Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    return this.#read(this.#start());
  }

  /**
   * The same pieces as a web stream; cancelling it cancels the request.
   *
   * @throws TypeError when the stream is being read, or has been
   */
  toReadableStream(): ReadableStream<T> {
    const scope = this.#start();
    const pieces = this.#read(scope);
    const source = {
      async pull(controller: ReadableStreamDefaultController<T>): Promise<void> {
        const { done, value } = await pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel(): void {
        scope.close(); // first: a piece that is being waited for would keep the generator from returning
        void pieces.return().catch(() => {});
      },
    };
    return new ReadableStream<T>(source, { highWaterMark: 0 }); // nothing is read before it is asked for
  }

  #start(): CallScope {
    if (this.#isStarted) throw new TypeError("the stream can be read only once");
    this.#isStarted = true;
    return this.#makeScope();
  }

  async *#read(scope: CallScope): AsyncGenerator<T, void, undefined> {
    try {
      scope.check();
      this.#result = yield* this.#checked(scope);
    } finally {
      scope.close();
    }
  }

  /** An abort takes effect even between pieces that have already been received. */
  async *#checked(scope: CallScope): AsyncGenerator<T, R, undefined> {
    const pieces = this.#source(scope);
    try {
      for (;;) {
        const { done, value } = await pieces.next();
        scope.check();
        if (done) return value;
        yield value;
        scope.check();
      }
    } finally {
      await pieces.return(undefined as R);
    }
  }
}
