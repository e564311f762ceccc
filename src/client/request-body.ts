import type {
  ChoiceStreamRequest,
  CompletionRequest,
  Prompt,
  PromptList,
  StreamRequest,
} from "./completion-request.js";

type AnyRequest = StreamRequest & ChoiceStreamRequest & CompletionRequest;
type Value<K extends keyof AnyRequest> = NonNullable<AnyRequest[K]>;

/** A field's name on the wire. The type makes this list complete; a name that is not in it is a mistake of the caller. */
const WIRE_NAMES: Readonly<Record<Exclude<keyof AnyRequest, "extra">, string>> = {
  prompt: "prompt",
  model: "model",
  maxTokens: "max_tokens",
  minTokens: "min_tokens",
  temperature: "temperature",
  topP: "top_p",
  topK: "top_k",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  logitBias: "logit_bias",
  allowedTokenIds: "allowed_token_ids",
  seed: "seed",
  stop: "stop",
  stopTokenIds: "stop_token_ids",
  ignoreEos: "ignore_eos",
  includeStop: "include_stop_str_in_output",
  structuredOutputs: "structured_outputs",
  responseFormat: "response_format",
  utf8: "utf8",
  echo: "echo",
  truncatePromptTokens: "truncate_prompt_tokens",
  cacheSalt: "cache_salt",
  sessionId: "session_id",
  priority: "priority",
  requestId: "request_id",
  user: "user",
  logprobs: "logprobs",
  promptLogprobs: "prompt_logprobs",
  streamInterval: "stream_interval",
  n: "n",
  bestOf: "best_of",
};

/** Fields whose values are spelled differently on the wire. */
const CONVERSIONS: { readonly [K in keyof AnyRequest]?: (value: Value<K>) => unknown } = {
  prompt: toPrompt,
  allowedTokenIds: (ids) => Array.from(ids),
  stop: (stop) => (typeof stop === "string" ? stop : (stop instanceof Uint8Array ? [stop] : stop).map(toTextOrIds)),
  structuredOutputs: (outputs) => ("jsonObject" in outputs ? { json_object: outputs.jsonObject } : outputs),
  responseFormat: (format) =>
    format.type === "json_schema" ? { type: format.type, json_schema: format.jsonSchema } : format,
};

/**
 * The body of a completion request.
 *
 * @throws TypeError for a field that does not exist, and for NaN and infinities, which JSON would turn into "not given"
 */
export function toRequestBody(
  request: StreamRequest | ChoiceStreamRequest | CompletionRequest,
): Record<string, unknown> {
  const body: Record<string, unknown> = { ...request.extra };
  for (const [key, value] of Object.entries(request)) {
    if (key === "extra" || value === undefined) continue;
    const name = Object.hasOwn(WIRE_NAMES, key) ? WIRE_NAMES[key as keyof typeof WIRE_NAMES] : undefined;
    if (name === undefined) throw new TypeError(`${key}: no such field; wire fields that are not listed go into extra`);
    if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${key}: must be a finite number`);
    const convert = CONVERSIONS[key as keyof AnyRequest] as ((value: unknown) => unknown) | undefined;
    body[name] = convert === undefined || value === null ? value : convert(value);
  }
  return body;
}

/** How many choices a body asks for: what a stream must have ended before it is whole. */
export function numChoices(body: Readonly<Record<string, unknown>>): number {
  const { prompt, n } = body;
  const numPrompts = Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] !== "number" ? prompt.length : 1;
  return numPrompts * (typeof n === "number" ? n : 1);
}

function toPrompt(prompt: Prompt | PromptList): unknown {
  if (typeof prompt === "string") return prompt;
  if (prompt instanceof Uint8Array) return Array.from(prompt);
  return (prompt as readonly unknown[]).map(toTextOrIds);
}

/** JSON has no bytes: they are sent as their ids. */
function toTextOrIds(value: unknown): unknown {
  return value instanceof Uint8Array ? Array.from(value) : value;
}
