import { MblmError } from "../errors.js";
import { endIds, type GenerationRequest } from "./generation-request.js";
import type { ModelInfo } from "./model-info.js";
import { stateLength } from "./state-snapshot.js";

/**
 * Checks a request against the loaded model, before any work is done for it.
 *
 * @throws MblmError `invalid_request` (with the field's wire name) or `context_length_exceeded`
 */
export function checkRequest(request: GenerationRequest, model: ModelInfo): void {
  const { vocabularySize } = model;
  requireIds(request.prompt, vocabularySize, "prompt");
  requireIds(request.sampling.logitBias.keys(), vocabularySize, "logit_bias");
  requireIds(request.resume?.tail ?? [], vocabularySize, "session");
  requireIds(request.continues ?? [], vocabularySize, "session");
  requireIds(request.stop.stopIds, vocabularySize, "stop_token_ids");
  requireIds(request.sampling.allowedIds ?? [], vocabularySize, "allowed_token_ids");
  requireChoice(request, model);
  requireRoomForMatch(request);
  requireLength(request, model.maxLength);
}

/** While end ids are banned, another id must be there to be generated. */
function requireChoice({ sampling, stop }: GenerationRequest, model: ModelInfo): void {
  const allowed = new Set(sampling.allowedIds ?? Array.from({ length: model.vocabularySize }, (_, id) => id));
  if (allowed.size === 0) throw invalid("allowed_token_ids", "must name at least one id");
  if (stop.minNewBytes === 0) return;
  for (const id of endIds(stop, model.eosId)) allowed.delete(id);
  if (allowed.size === 0) {
    throw invalid("stop_token_ids", "with min_tokens above 0, an id that ends nothing must be left to generate");
  }
}

function requireRoomForMatch({ constraint, stop }: GenerationRequest): void {
  const shortest = constraint?.automaton.distance[0] ?? 0;
  if (stop.maxNewBytes >= shortest) return;
  throw invalid("max_tokens", `${stop.maxNewBytes} is less than the ${shortest} bytes of the shortest accepted output`);
}

function invalid(field: string, message: string): MblmError {
  return new MblmError("invalid_request", `${field}: ${message}`, { field });
}

function requireIds(ids: Iterable<number>, vocabularySize: number, field: string): void {
  for (const id of ids) {
    if (Number.isInteger(id) && id >= 0 && id < vocabularySize) continue;
    throw invalid(field, `id ${id} is not one of the model's 0 to ${vocabularySize - 1}`);
  }
}

function requireLength(request: GenerationRequest, maxLength: number | undefined): void {
  const promptLength = (request.resume === undefined ? 0 : stateLength(request.resume)) + request.prompt.length;
  requireRoom(promptLength, request.stop.maxNewBytes - (request.continues?.length ?? 0), maxLength);
}

/**
 * @param promptLength bytes of the prompt and of what it follows, as far as they are known
 * @param maxLength most bytes that the model holds; undefined: any number
 * @throws MblmError `context_length_exceeded`
 */
export function requireRoom(promptLength: number, maxNewBytes: number, maxLength: number | undefined): void {
  if (maxLength === undefined || promptLength + maxNewBytes <= maxLength) return;
  throw new MblmError(
    "context_length_exceeded",
    `This model holds at most ${maxLength} bytes, but the prompt has ${promptLength} and max_tokens asks for ${maxNewBytes} more.`,
    { field: promptLength > maxLength ? "prompt" : "max_tokens" },
  );
}
