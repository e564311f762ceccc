/** A prompt: text, or bytes of any kind. */
export type Prompt = string | Uint8Array;

/** What the output must match; exactly one of them. */
export type StructuredOutputs =
  /** ECMAScript pattern that the whole output matches. */
  | { readonly regex: string }
  | { readonly choice: readonly string[] }
  /** JSON schema. */
  | { readonly json: object }
  | { readonly jsonObject: true };

/** Options of a completion; what is left out has the server's default. Counts are bytes. */
export interface CompletionOptions {
  readonly prompt?: Prompt | readonly Prompt[];
  readonly model?: string;
  /** Most bytes to generate (default 16). */
  readonly maxTokens?: number;
  readonly minTokens?: number;
  /** 0 … 2, 0 is greedy. */
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** Id → −100 … 100. */
  readonly logitBias?: Readonly<Record<number, number>>;
  readonly allowedTokenIds?: readonly number[];
  /** The same seed gives the same bytes. */
  readonly seed?: number;
  /** Texts or bytes that end the output. */
  readonly stop?: Prompt | readonly Prompt[];
  readonly stopTokenIds?: readonly number[];
  readonly ignoreEos?: boolean;
  readonly includeStop?: boolean;
  /** Choices per prompt. */
  readonly n?: number;
  readonly bestOf?: number;
  readonly echo?: boolean;
  /** Alternatives reported beside each byte, 0 … 20. */
  readonly logprobs?: number;
  readonly promptLogprobs?: number;
  /** Keeps only the last so many bytes of the prompt; −1 as many as fit. */
  readonly truncatePromptTokens?: number;
  readonly structuredOutputs?: StructuredOutputs;
  /** Generates valid UTF-8 only. */
  readonly utf8?: boolean;
  readonly cacheSalt?: string;
  readonly priority?: number;
  readonly requestId?: string;
  readonly user?: string;
  /** Fields that this client does not know, by their wire names. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** Wire names that are not the option's name in snake_case. */
const WIRE_NAMES: Readonly<Record<string, string>> = { includeStop: "include_stop_str_in_output" };

/** The request's body. */
export function toWire({ extra, ...options }: CompletionOptions): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined) body[WIRE_NAMES[name] ?? toSnakeCase(name)] = toWireValue(name, value);
  }
  return { ...body, ...extra };
}

function toWireValue(name: string, value: unknown): unknown {
  if (name === "prompt") return toWirePrompt(value as NonNullable<CompletionOptions["prompt"]>);
  if (name === "stop") return toWireStop(value as NonNullable<CompletionOptions["stop"]>);
  if (name === "structuredOutputs") {
    return Object.fromEntries(Object.entries(value as object).map(([kind, v]) => [toSnakeCase(kind), v]));
  }
  return value;
}

function toWirePrompt(prompt: NonNullable<CompletionOptions["prompt"]>): unknown {
  if (!Array.isArray(prompt)) return toWireBytes(prompt as Prompt);
  // The wire has lists of texts and lists of ids, none of both.
  const isText = prompt.every((item) => typeof item === "string");
  return isText ? prompt : prompt.map((item) => (typeof item === "string" ? [...encode(item)] : toWireBytes(item)));
}

/** One stop of bytes must be a list of stops: a bare list of numbers would be another thing. */
function toWireStop(stop: NonNullable<CompletionOptions["stop"]>): unknown {
  if (typeof stop === "string") return stop;
  return stop instanceof Uint8Array ? [toWireBytes(stop)] : stop.map(toWireBytes);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function toWireBytes(bytes: Prompt): string | number[] {
  return typeof bytes === "string" ? bytes : Array.from(bytes);
}

function toSnakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
