import type { ByteStream, Generation, GenerationResult, StreamConnection, StreamGeneration } from "../client/index.js";

/** What turns messages into the text that a model continues; undefined: what is typed is that text. */
export interface TurnFormat {
  readonly render: (messages: readonly Message[], addGenerationPrompt: boolean) => string;
  readonly stop: readonly string[];
}

export interface Message {
  readonly role: "user" | "assistant";
  readonly content: string;
}

/** Turns between a person and a model over one byte stream: only what is new is ever sent. */
export class Conversation {
  #stream: ByteStream;
  /** The end of the stream's context as text, as far as this conversation made it. */
  #tail = "";
  #generation: Generation | undefined;

  private constructor(
    private readonly connection: StreamConnection,
    stream: ByteStream,
    private readonly format: TurnFormat | undefined,
    private readonly options: StreamGeneration,
  ) {
    this.#stream = stream;
  }

  /** @param sessionId session to go on with, which is made if there is none */
  static async start(
    connection: StreamConnection,
    sessionId: string | undefined,
    format: TurnFormat | undefined,
    options: StreamGeneration,
  ): Promise<Conversation> {
    const stream = await connection.open(sessionId === undefined ? {} : { sessionId, create: true });
    return new Conversation(connection, stream, format, options);
  }

  /** Bytes of the context. */
  get contextBytes(): number {
    return this.#stream.contextBytes;
  }

  get isGenerating(): boolean {
    return this.#generation !== undefined;
  }

  /** Ends the answer where it is. */
  cancel(): void {
    this.#generation?.cancel();
  }

  /** Yields the answer's text as it comes, and returns how it ended. */
  async *say(text: string): AsyncGenerator<string, GenerationResult> {
    const added = this.#toAdd(text);
    await this.#stream.push(added);
    const stop = [this.options.stop ?? [], this.format?.stop ?? []].flat() as string[];
    this.#generation = this.#stream.generate({ ...this.options, stop });
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let answer = "";
    try {
      for await (const bytes of this.#generation) {
        const piece = decoder.decode(bytes, { stream: true });
        answer += piece;
        yield piece;
      }
      const rest = decoder.decode();
      if (rest !== "") yield rest;
      const result = await this.#generation.result;
      const stopText = typeof result.stopReason === "string" ? result.stopReason : "";
      // A stop that was hit is part of the context, though hidden.
      this.#tail = added + answer + rest + stopText;
      return result;
    } finally {
      this.#generation = undefined;
    }
  }

  /** Keeps what was said so far as a new session; returns its id. */
  save(sessionId: string | undefined): Promise<string> {
    return this.#stream.snapshot(sessionId);
  }

  /** Begins anew. */
  async reset(): Promise<void> {
    await this.#stream.close();
    this.#stream = await this.connection.open();
    this.#tail = "";
  }

  close(): Promise<void> {
    return this.#stream.close();
  }

  /** What a turn adds to the context: where that ends with the beginning of it, as after a stop, the rest. */
  #toAdd(text: string): string {
    if (this.format === undefined) return text;
    const { render } = this.format;
    if (this.#stream.contextBytes === 0) return render([{ role: "user", content: text }], true);
    const next = nextTurn(render, text);
    for (let length = Math.min(next.length, this.#tail.length); length > 0; length--) {
      if (this.#tail.endsWith(next.slice(0, length))) return next.slice(length);
    }
    return next;
  }
}

/** What comes after the words of an answer when the user says something. */
function nextTurn(render: TurnFormat["render"], text: string): string {
  const marker = "\u{10fffd}"; // of private use: no template has it
  const before: Message[] = [
    { role: "user", content: "" },
    { role: "assistant", content: marker },
  ];
  const whole = render([...before, { role: "user", content: text }], true);
  return whole.slice(whole.lastIndexOf(marker) + marker.length);
}
