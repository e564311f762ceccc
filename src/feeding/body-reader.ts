import { Readable } from "node:stream";
import { reasonOf } from "../core/stopping.js";
import { MblmError } from "../errors.js";

/** Of a sender that pauses for longer, what has come so far is passed on. */
const LINGER_SECONDS = 0.2;

export interface BodyLimits {
  readonly maxBytes: number;
  /** Seconds without a byte after which the sender is given up; 0: any. */
  readonly idleSeconds: number;
}

/**
 * A stream of bytes, such as a request's body, as it arrives. At most one piece of it is here: while nobody asks for the next one, the sender is held
 * back. Once it has thrown there is nothing more to read.
 */
export class BodyReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #pending: Promise<IteratorResult<Uint8Array>> | undefined;
  /** What came behind the last piece. */
  #rest: Uint8Array = NOTHING;
  #piece = NOTHING;
  #numBytes = 0;
  #numReceived = 0;
  #isAtEnd = false;

  /** @param onBytes told of the bytes that have come */
  constructor(
    stream: AsyncIterable<Uint8Array>,
    private readonly limits: BodyLimits,
    private readonly onBytes: (count: number) => void = () => {},
  ) {
    // Who reads no further must not break the connection off: an answer is still to go out on it.
    this.#chunks = (
      stream instanceof Readable ? stream.iterator({ destroyOnReturn: false }) : stream[Symbol.asyncIterator]()
    ) as AsyncIterator<Uint8Array>;
  }

  /** Bytes passed on so far. */
  get numBytes(): number {
    return this.#numBytes;
  }

  /** Bytes that have come so far. */
  get numReceived(): number {
    return this.#numReceived;
  }

  /** Whether nothing follows what was passed on. Known to be so only where a piece came out short. */
  get isAtEnd(): boolean {
    return this.#isAtEnd;
  }

  /**
   * The next `size` bytes: fewer at the end, and where the sender pauses; none at the end alone. Valid until the next call.
   *
   * @param stop ends the waiting
   * @throws MblmError `body_too_large`, `idle_timeout`, `aborted` when the body breaks off, or the reason of `stop`
   */
  async next(size: number, stop: AbortSignal): Promise<Uint8Array> {
    if (this.#piece.length !== size) this.#piece = new Uint8Array(size);
    let length = 0;
    while (length < size && !this.#isAtEnd) {
      if (this.#rest.length === 0) {
        const chunk = await this.#chunk(length > 0 ? LINGER_SECONDS : this.limits.idleSeconds, stop);
        if (chunk === "late" && length > 0) break;
        if (chunk === "late") throw this.#idle();
        this.#rest = chunk;
      }
      const taken = this.#rest.subarray(0, size - length);
      this.#piece.set(taken, length);
      this.#rest = this.#rest.subarray(taken.length);
      length += taken.length;
    }
    this.#numBytes += length;
    return this.#piece.subarray(0, length);
  }

  /** All of the body in pieces of at most `size`, none of them empty; a piece is valid until the next is asked for. */
  async *pieces(size: number, stop: AbortSignal): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = await this.next(size, stop);
      if (piece.length === 0) return;
      yield piece;
    }
  }

  /** Lets go of the stream, wherever it is; what is left of it is somebody else's to read. */
  close(): void {
    void this.#chunks.return?.().catch(() => {});
  }

  /** What comes next, empty at the end, unless it takes longer. */
  async #chunk(seconds: number, stop: AbortSignal): Promise<Uint8Array | "late"> {
    this.#pending ??= this.#chunks.next();
    const result = await within(this.#pending, seconds, stop);
    if (result === "late") return result;
    this.#pending = undefined;
    if (result.done) {
      this.#isAtEnd = true;
      return NOTHING;
    }
    const { value } = result;
    const { maxBytes } = this.limits;
    this.#numReceived += value.length;
    this.onBytes(value.length);
    if (this.#numReceived > maxBytes) throw tooLarge(maxBytes);
    return value;
  }

  #idle(): MblmError {
    const { idleSeconds } = this.limits;
    const message = `body: no byte has come for ${idleSeconds} s, as long as this server waits (upload_idle_seconds)`;
    return new MblmError("idle_timeout", message, { field: "body" });
  }
}

const NOTHING = new Uint8Array();

/** The whole stream. @throws MblmError `body_too_large` above `maxBytes`, `aborted` when it breaks off */
export async function readWhole(stream: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const reader = new BodyReader(stream, { maxBytes, idleSeconds: 0 });
  const chunks: Uint8Array[] = [];
  for await (const piece of reader.pieces(WHOLE_PIECE_BYTES, NEVER)) chunks.push(piece.slice());
  return Buffer.concat(chunks);
}

const WHOLE_PIECE_BYTES = 65_536;
const NEVER = new AbortController().signal;

/** The refusal of a body that is larger than it may be. */
export function tooLarge(maxBytes: number): MblmError {
  return new MblmError("body_too_large", `body: must not be larger than ${maxBytes} bytes`, { field: "body" });
}

/** What has been promised, unless it takes longer. */
function within<T>(promise: Promise<T>, seconds: number, stop: AbortSignal): Promise<T | "late"> {
  return new Promise((resolve, reject) => {
    const settle = (how: () => void): void => {
      clearTimeout(timer);
      stop.removeEventListener("abort", abort);
      how();
    };
    const abort = (): void => settle(() => reject(reasonOf(stop)));
    const timer = seconds > 0 ? setTimeout(() => settle(() => resolve("late")), seconds * 1000) : undefined;
    const breakOff = (cause: unknown): void => {
      const error = new MblmError("aborted", "The request's body broke off.", { cause });
      settle(() => reject(cause instanceof MblmError ? cause : error));
    };
    promise.then((value) => settle(() => resolve(value)), breakOff);
    if (stop.aborted) abort();
    else stop.addEventListener("abort", abort);
  });
}
