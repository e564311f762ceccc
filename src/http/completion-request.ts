import { randomBytes } from "node:crypto";
import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import type { CompletionBody } from "./completions-schema.js";

/** The generations that a completion request asks for: prompt p's choice k is number p·n + k. */
export function toGenerationRequests(
  body: CompletionBody,
  id: string,
  info: ModelInfo,
  maxSequences: number,
): GenerationRequest[] {
  const { n } = body;
  const prompts = toPrompts(body.prompt, info.vocabularySize);
  if (prompts.length * n > maxSequences) {
    throw invalid("n", `${prompts.length} prompts × n ${n} exceed the limit of ${maxSequences} sequences per request`);
  }
  if (body.min_tokens > body.max_tokens) throw invalid("min_tokens", `must not exceed max_tokens (${body.max_tokens})`);
  const seed = body.seed === null ? randomBytes(8).readBigUInt64LE() : BigInt(body.seed);
  const shared = {
    stop: {
      maxNewBytes: body.max_tokens,
      minNewBytes: body.min_tokens,
      stopSequences: toStopSequences(body.stop),
      stopIds: body.stop_token_ids.map((stopId) => checkId("stop_token_ids", stopId, info.vocabularySize)),
      ignoreEos: body.ignore_eos,
      includeStop: body.include_stop_str_in_output,
    },
    ...(body.logprobs === null ? {} : { numLogprobs: body.logprobs }),
  };
  const logitBias = new Map(
    Object.entries(body.logit_bias ?? {}).map(([key, bias]) => [
      checkId("logit_bias", Number(key), info.vocabularySize),
      bias,
    ]),
  );
  return prompts.flatMap((prompt, p) =>
    Array.from({ length: n }, (_, k) => ({
      id: prompts.length * n === 1 ? id : `${id}-${p * n + k}`,
      prompt,
      ...shared,
      sampling: {
        temperature: body.temperature,
        topK: Math.max(0, body.top_k),
        topP: body.top_p,
        minP: body.min_p,
        repetitionPenalty: body.repetition_penalty,
        presencePenalty: body.presence_penalty,
        frequencyPenalty: body.frequency_penalty,
        logitBias,
        // Choices of one prompt differ; choice 0 of every prompt has the seed itself.
        seed: BigInt.asUintN(64, seed + BigInt(k) * 0x9e3779b97f4a7c15n),
      },
    })),
  );
}

function toPrompts(prompt: CompletionBody["prompt"], vocabularySize: number): Uint16Array[] {
  if (typeof prompt === "string") return [encodePrompt(prompt)];
  const first = prompt[0];
  if (first === undefined || typeof first === "number") return [toIds(prompt as number[], vocabularySize)];
  return (prompt as (string | number[])[]).map((item) =>
    typeof item === "string" ? encodePrompt(item) : toIds(item, vocabularySize),
  );
}

function encodePrompt(text: string): Uint16Array {
  return Uint16Array.from(encodeText("prompt", text));
}

/** UTF-8 of a text; JSON can spell half a surrogate pair, which has none and would silently become U+FFFD. */
function encodeText(field: string, text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) throw invalid(field, "has half of a surrogate pair, which is no Unicode text");
  return new TextEncoder().encode(text);
}

function toIds(ids: readonly number[], vocabularySize: number): Uint16Array {
  return Uint16Array.from(ids, (id) => checkId("prompt", id, vocabularySize));
}

function checkId(field: string, id: number, vocabularySize: number): number {
  if (id >= vocabularySize) throw invalid(field, `id ${id} is outside the vocabulary (0–${vocabularySize - 1})`);
  return id;
}

function toStopSequences(stop: CompletionBody["stop"]): Uint8Array[] {
  const list = stop === null ? [] : typeof stop === "string" ? [stop] : stop;
  return list.map((item) => (typeof item === "string" ? encodeText("stop", item) : Uint8Array.from(item)));
}

function invalid(field: string, message: string): MblmError {
  return new MblmError("invalid_request", `${field}: ${message}`, { field });
}
