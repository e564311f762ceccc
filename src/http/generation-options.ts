import { randomBytes } from "node:crypto";
import type { ConstraintCompiler } from "../constraints/constraint-compiler.js";
import type { ConstraintSource } from "../constraints/constraint-source.js";
import type { GenerationRequest, OutputConstraint, StopConditions } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import type { SamplingParams } from "../core/sampling-params.js";
import { MblmError } from "../errors.js";
import { isLeftOut } from "./schemas/nullable.js";
import { encodeText } from "./text.js";

/** The fields that completions and chat share, resolved: no null where there is a default. */
export interface GenerationBody {
  readonly max_tokens: number;
  readonly min_tokens: number;
  readonly temperature: number;
  readonly top_p: number;
  readonly top_k: number;
  readonly min_p: number;
  readonly repetition_penalty: number;
  readonly presence_penalty: number;
  readonly frequency_penalty: number;
  readonly logit_bias: Readonly<Record<string, number>> | null;
  readonly allowed_token_ids: readonly number[] | null;
  readonly seed: number | null;
  readonly stop: string | readonly (string | readonly number[])[] | null;
  readonly stop_token_ids: readonly number[];
  readonly ignore_eos: boolean;
  readonly include_stop_str_in_output: boolean;
  readonly n: number;
  readonly stream: boolean;
  readonly stream_options: { readonly include_usage?: boolean | null } | null;
  readonly stream_interval: number;
  readonly structured_outputs: StructuredOutputs | null;
  readonly response_format: ResponseFormat | null;
  readonly utf8: boolean;
  readonly return_token_ids: boolean;
  readonly truncate_prompt_tokens: number | null;
  readonly cache_salt: string | null;
  readonly priority: number;
  readonly request_id: string | null;
}

interface StructuredOutputs {
  readonly regex?: string | null;
  readonly choice?: readonly string[] | null;
  readonly json?: unknown;
  readonly json_object?: true | null;
}

interface ResponseFormat {
  readonly type: "text" | "json_object" | "json_schema";
  readonly json_schema?: { readonly schema: unknown };
}

/** Everything of a generation but its prompt and its place among its siblings. */
export type GenerationOptions = Pick<GenerationRequest, "stop" | "constraint" | "cacheSalt" | "priority"> & {
  readonly sampling: SamplingParams;
};

/**
 * Resolves and checks the shared fields.
 *
 * @param moreStops stop texts beside the request's own
 * @throws MblmError `invalid_request` naming the field
 */
export function toGenerationOptions(
  body: GenerationBody,
  info: ModelInfo,
  compiler: ConstraintCompiler,
  moreStops: readonly string[] = [],
): GenerationOptions {
  const { vocabularySize } = info;
  if (body.min_tokens > body.max_tokens) throw invalid("min_tokens", `must not exceed max_tokens (${body.max_tokens})`);
  const stop: StopConditions = {
    maxNewBytes: body.max_tokens,
    minNewBytes: body.min_tokens,
    stopSequences: [...toStopSequences(body.stop), ...moreStops.map((text) => encodeText("stop", text))],
    stopIds: body.stop_token_ids.map((id) => checkId("stop_token_ids", id, vocabularySize)),
    ignoreEos: body.ignore_eos,
    includeStop: body.include_stop_str_in_output,
  };
  const constraint = toConstraint(body, stop, info, compiler);
  return {
    stop,
    ...(constraint === undefined ? {} : { constraint }),
    ...(body.cache_salt === null ? {} : { cacheSalt: body.cache_salt }),
    priority: body.priority,
    sampling: toSampling(body, vocabularySize),
  };
}

type SamplingFields = Pick<
  GenerationBody,
  | "temperature"
  | "top_k"
  | "top_p"
  | "min_p"
  | "repetition_penalty"
  | "presence_penalty"
  | "frequency_penalty"
  | "logit_bias"
  | "allowed_token_ids"
  | "seed"
>;

/** @throws MblmError `invalid_request` for an id outside the vocabulary */
export function toSampling(body: SamplingFields, vocabularySize: number): SamplingParams {
  return {
    temperature: body.temperature,
    topK: Math.max(0, body.top_k),
    topP: body.top_p,
    minP: body.min_p,
    repetitionPenalty: body.repetition_penalty,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    logitBias: toLogitBias(body.logit_bias, vocabularySize),
    ...(body.allowed_token_ids === null
      ? {}
      : { allowedIds: body.allowed_token_ids.map((id) => checkId("allowed_token_ids", id, vocabularySize)) }),
    seed: body.seed === null ? randomBytes(8).readBigUInt64LE() : BigInt.asUintN(64, BigInt(body.seed)),
  };
}

/** Choices of one prompt differ; choice 0 of every prompt has the seed itself. */
export function seedOfChoice(seed: bigint, choice: number): bigint {
  return BigInt.asUintN(64, seed + BigInt(choice) * 0x9e3779b97f4a7c15n);
}

function toLogitBias(bias: GenerationBody["logit_bias"], vocabularySize: number): Map<number, number> {
  return new Map(
    Object.entries(bias ?? {}).map(([key, value]) => [checkId("logit_bias", Number(key), vocabularySize), value]),
  );
}

export function checkId(field: string, id: number, vocabularySize: number): number {
  if (Number.isInteger(id) && id >= 0 && id < vocabularySize) return id;
  throw invalid(field, `id ${id} is outside the vocabulary (0–${vocabularySize - 1})`);
}

function toStopSequences(stop: GenerationBody["stop"]): Uint8Array[] {
  const list = stop === null ? [] : typeof stop === "string" ? [stop] : stop;
  return list.map((item) => (typeof item === "string" ? encodeText("stop", item) : Uint8Array.from(item)));
}

/** The output's automaton: over the bytes that may be generated and end nothing. */
function toConstraint(
  body: GenerationBody,
  stop: StopConditions,
  info: ModelInfo,
  compiler: ConstraintCompiler,
): OutputConstraint | undefined {
  const structured = structuredSource(body);
  if (structured === undefined && !body.utf8) return undefined;
  if (body.utf8 && structured === undefined) requireWholeCharacters(stop);
  const { source, field } = structured ?? { source: { kind: "utf8" } as const, field: "utf8" };
  const automaton = compiler.compile(source, field, allowedBytes(body, stop, info));
  return { automaton, endsAtMismatch: structured !== undefined };
}

/** What an output must match, and the field that says so. */
interface SourceOfField {
  readonly source: ConstraintSource;
  readonly field: string;
}

function structuredSource(body: GenerationBody): SourceOfField | undefined {
  const { structured_outputs: outputs, response_format: format } = body;
  if (outputs !== null && format !== null && format.type !== "text") {
    throw invalid("response_format", "cannot be combined with structured_outputs");
  }
  if (outputs !== null) return outputsSource(outputs);
  if (format?.type === "json_object") return { source: { kind: "json_object" }, field: "response_format" };
  if (format?.type !== "json_schema") return undefined;
  const field = "response_format.json_schema.schema";
  return { source: { kind: "json_schema", schema: format.json_schema!.schema }, field };
}

function outputsSource({ regex, choice, json, json_object }: StructuredOutputs): SourceOfField {
  const fields: SourceOfField[] = [];
  const add = (name: string, source: ConstraintSource) => fields.push({ source, field: `structured_outputs.${name}` });
  if (!isLeftOut(regex)) add("regex", { kind: "regex", pattern: regex });
  if (!isLeftOut(choice)) add("choice", { kind: "choice", choices: choice });
  if (!isLeftOut(json)) add("json", { kind: "json_schema", schema: toSchema(json) });
  if (!isLeftOut(json_object)) add("json_object", { kind: "json_object" });
  if (fields.length === 1) return fields[0]!;
  throw invalid("structured_outputs", "must have exactly one of regex, choice, json and json_object");
}

/** vLLM's clients send a schema as an object or as its text. */
function toSchema(json: unknown): unknown {
  if (typeof json !== "string") return json;
  try {
    return JSON.parse(json);
  } catch {
    throw invalid("structured_outputs.json", "is neither a JSON schema nor the text of one");
  }
}

/** Undefined = all of them. A byte that ends the output is no part of it. */
function allowedBytes(body: GenerationBody, stop: StopConditions, info: ModelInfo): ReadonlySet<number> | undefined {
  const ends = [...stop.stopIds, ...(stop.ignoreEos || info.eosId === undefined ? [] : [info.eosId])];
  const endBytes = ends.filter((id) => id < 256);
  if (body.allowed_token_ids === null && endBytes.length === 0) return undefined;
  const allowed = new Set(body.allowed_token_ids ?? Array.from({ length: 256 }, (_, byte) => byte));
  for (const byte of endBytes) allowed.delete(byte);
  return allowed;
}

/** A stop that begins or ends inside a character would cut one in half. */
function requireWholeCharacters(stop: StopConditions): void {
  for (const sequence of stop.stopSequences) {
    if (!isUtf8(sequence)) throw invalid("stop", "with utf8, every stop must be whole characters");
  }
  if (stop.stopIds.some((id) => id >= 0x80 && id < 0x100)) {
    throw invalid("stop_token_ids", "with utf8, a stop id must not be a byte of a longer character (128–255)");
  }
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

export function invalid(field: string, message: string): MblmError {
  return new MblmError("invalid_request", `${field}: ${message}`, { field });
}
