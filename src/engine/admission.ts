import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import { endIds } from "./end-conditions.js";

/**
 * Checks a request against the loaded model, before any work is done for it.
 *
 * @throws MblmError `invalid_request` (with the field's wire name) or `context_length_exceeded`
 */
export function checkRequest(request: GenerationRequest, model: ModelInfo): void {
  const { vocabularySize } = model;
  requireIds(request.prompt, vocabularySize, "prompt");
  requireIds(request.sampling.logitBias.keys(), vocabularySize, "logit_bias");
  requireIds(request.stop.stopIds, vocabularySize, "stop_token_ids");
  if (request.stop.minNewBytes > 0 && endIds(request.stop, model.eosId).length >= vocabularySize) {
    throw new MblmError(
      "invalid_request",
      "With min_tokens above 0, stop_token_ids must leave an id that can be generated.",
      {
        field: "stop_token_ids",
      },
    );
  }
  requireLength(request, model.maxLength);
}

function requireIds(ids: Iterable<number>, vocabularySize: number, field: string): void {
  for (const id of ids) {
    if (id < vocabularySize) continue;
    throw new MblmError("invalid_request", `${field}: id ${id} is not one of the model's 0 to ${vocabularySize - 1}.`, {
      field,
    });
  }
}

function requireLength(request: GenerationRequest, maxLength: number | undefined): void {
  const promptLength = request.prompt.length;
  const { maxNewBytes } = request.stop;
  if (maxLength === undefined || promptLength + maxNewBytes <= maxLength) return;
  throw new MblmError(
    "context_length_exceeded",
    `This model holds at most ${maxLength} bytes, but the prompt has ${promptLength} and max_tokens asks for ${maxNewBytes} more.`,
    { field: promptLength > maxLength ? "prompt" : "max_tokens" },
  );
}
