/** Text, raw bytes, or ids (bytes 0–255 and the model's special ids). */
export type Prompt = string | Uint8Array | readonly number[];

/** Several prompts: all texts, or none of them. */
export type PromptList = readonly string[] | readonly (Uint8Array | readonly number[])[];

/** What the output must match, within `maxTokens`: exactly one of these. */
export type StructuredOutputs =
  /** ECMAScript pattern that the whole output matches. */
  | { readonly regex: string }
  /** The output is one of these. */
  | { readonly choice: readonly string[] }
  /** JSON schema (or its text) that the output is valid against. */
  | { readonly json: object | boolean | string }
  /** The output is a JSON object. */
  | { readonly jsonObject: true };

/** OpenAI's way to ask for JSON. */
export type ResponseFormat =
  | { readonly type: "text" | "json_object" }
  | {
      readonly type: "json_schema";
      readonly jsonSchema: {
        readonly schema: object | boolean | string;
        readonly name?: string | undefined;
        readonly description?: string | undefined;
        readonly strict?: boolean | undefined;
      };
    };

/** How one prompt is continued. Tokens are bytes. What is left out has the server's default, given in parentheses. */
export interface GenerationOptions {
  /** Id of the model; the served one when left out. */
  readonly model?: string | undefined;
  /** Most bytes to generate (16), ≥ 0; 0 with `echo` reports on the prompt alone. */
  readonly maxTokens?: number | undefined;
  /** No stop condition applies before this many bytes (0). */
  readonly minTokens?: number | undefined;
  /** 0–2 (1); 0 is greedy. */
  readonly temperature?: number | undefined;
  /** Above 0, up to 1 (1): the smallest set of bytes with this probability. */
  readonly topP?: number | undefined;
  /** Only so many of the most likely bytes; 0 or -1 keeps all (0). */
  readonly topK?: number | undefined;
  /** 0–1 (0): least probability relative to the most likely byte's. */
  readonly minP?: number | undefined;
  /** 0.01–10 (1): above 1, ids of prompt and output become less likely. */
  readonly repetitionPenalty?: number | undefined;
  /** -2–2 (0): taken once from the logit of an id in the output. */
  readonly presencePenalty?: number | undefined;
  /** -2–2 (0): taken from the logit of an id for each time it is in the output. */
  readonly frequencyPenalty?: number | undefined;
  /** Id → bias of its logit, -100–100. */
  readonly logitBias?: Readonly<Record<number, number>> | undefined;
  /** The only ids that may be generated. */
  readonly allowedTokenIds?: readonly number[] | Uint8Array | undefined;
  /** A safe integer; the same seed gives the same bytes, whatever else the server does. */
  readonly seed?: number | undefined;
  /** Up to four texts or byte sequences that end generation, each 1–1024 long. */
  readonly stop?: string | Uint8Array | readonly (string | Uint8Array)[] | undefined;
  /** Up to 64 ids that end generation. */
  readonly stopTokenIds?: readonly number[] | undefined;
  /** Generates on after the model's end-of-sequence id (false). */
  readonly ignoreEos?: boolean | undefined;
  /** Whether the stop that ended generation is part of the output (false). */
  readonly includeStop?: boolean | undefined;
  /** What the output must match. */
  readonly structuredOutputs?: StructuredOutputs | undefined;
  /** OpenAI's form of the same; not both. */
  readonly responseFormat?: ResponseFormat | undefined;
  /** Generates valid UTF-8 only, and ends on a whole character (false). */
  readonly utf8?: boolean | undefined;
  /** The output begins with the prompt (false). */
  readonly echo?: boolean | undefined;
  /** Keeps only the last so many bytes of the prompt; -1: as many as the model holds beside `maxTokens`. */
  readonly truncatePromptTokens?: number | undefined;
  /** 1–256 characters; only requests with the same salt share cached prefixes. */
  readonly cacheSalt?: string | undefined;
  /** Goes on with this session: the prompt and the output become part of it. One prompt, one choice. */
  readonly sessionId?: string | undefined;
  /** -1 000 000–1 000 000 (0); waiting requests with a lower value start first. */
  readonly priority?: number | undefined;
  /** 1–128 letters, digits, `_`, `.` and `-`: part of the answer's id. */
  readonly requestId?: string | undefined;
  /** Accepted for compatibility. */
  readonly user?: string | undefined;
  /** Fields that this client does not know, as they are spelled on the wire. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined;
}

/** Reports of log-probs, in nats, in the model's own distribution. */
export interface LogprobOptions {
  /** 0–20: most likely ids reported beside each byte of the output (with `echo`, of the prompt, too). */
  readonly logprobs?: number | undefined;
  /** 0–20: the same for the prompt's bytes. */
  readonly promptLogprobs?: number | undefined;
}

/** A stream of one continuation of one prompt. */
export interface StreamRequest extends GenerationOptions {
  readonly prompt: Prompt;
  /** Least bytes per piece but the first and the last (1). */
  readonly streamInterval?: number | undefined;
}

/** A stream of any number of continuations, with all that the server reports on them. */
export interface ChoiceStreamRequest extends GenerationOptions, LogprobOptions {
  readonly prompt: Prompt | PromptList;
  /** Continuations of each prompt, 1–128 (1); the prompt is computed once. */
  readonly n?: number | undefined;
  /** Least bytes per piece but the first and the last of a choice (1). */
  readonly streamInterval?: number | undefined;
}

/** A completion as one answer. */
export interface CompletionRequest extends GenerationOptions, LogprobOptions {
  readonly prompt: Prompt | PromptList;
  /** Continuations of each prompt, 1–128 (1); the prompt is computed once. */
  readonly n?: number | undefined;
  /** Generates this many (n–128) and answers with the `n` whose mean log-prob is highest. */
  readonly bestOf?: number | undefined;
}
