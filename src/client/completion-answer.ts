import type { ChoicePiece, CompletionHead, FinishReason, Logprobs, Usage } from "./completion.js";
import { MblmProtocolError } from "./errors.js";
import type { WireChoice, WireCompletion, WireUsage } from "./wire.js";

/**
 * A parsed answer or chunk of a stream.
 *
 * @throws MblmProtocolError when it is no completion
 */
export function asCompletion(value: Readonly<Record<string, unknown>>): WireCompletion {
  if (!Array.isArray(value.choices)) throw new MblmProtocolError("the answer is no completion: it has no choices");
  return value as unknown as WireCompletion;
}

export function toHead(wire: WireCompletion, requestId: string | undefined): CompletionHead {
  return {
    id: wire.id,
    created: wire.created,
    model: wire.model,
    systemFingerprint: wire.system_fingerprint ?? undefined,
    requestId,
  };
}

/** @param echo whether the output begins with the prompt; the wire has its ids apart */
export function toChoicePiece(wire: WireChoice, echo: boolean): ChoicePiece {
  if (!Array.isArray(wire.token_ids)) throw new MblmProtocolError("the server did not send the bytes (token_ids)");
  const tokenIds = wire.token_ids as readonly number[];
  const promptTokenIds = wire.prompt_token_ids ?? undefined;
  return {
    index: wire.index,
    text: wire.text,
    bytes: toBytes(echo && promptTokenIds !== undefined ? [...promptTokenIds, ...tokenIds] : tokenIds),
    tokenIds,
    promptTokenIds,
    logprobs: wire.logprobs ? toLogprobs(wire.logprobs) : undefined,
    promptLogprobs: wire.prompt_logprobs?.map(toPromptLogprobs),
    finishReason: toFinishReason(wire.finish_reason),
    stopReason: toStopReason(wire.stop_reason),
  };
}

/** An ending that is not listed, such as an abort, is no success. */
function toFinishReason(reason: string | null): FinishReason | null {
  if (reason === null || reason === "stop" || reason === "length") return reason;
  throw new MblmProtocolError(`generation ended for an unknown reason: ${reason}`);
}

export function toUsage(wire: WireUsage): Usage {
  return {
    promptTokens: wire.prompt_tokens,
    completionTokens: wire.completion_tokens,
    totalTokens: wire.total_tokens,
    cachedTokens: wire.prompt_tokens_details?.cached_tokens ?? 0,
  };
}

/** Ids above 255 are special and have no byte. */
function toBytes(ids: readonly number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(ids.every((id) => id < 256) ? ids : ids.filter((id) => id < 256));
}

function toStopReason(reason: WireChoice["stop_reason"]): string | Uint8Array<ArrayBuffer> | number | null {
  if (reason === undefined || reason === null) return null;
  return typeof reason === "string" || typeof reason === "number" ? reason : Uint8Array.from(reason);
}

function toLogprobs(wire: NonNullable<WireChoice["logprobs"]>): Logprobs {
  return {
    tokens: wire.tokens,
    tokenLogprobs: wire.token_logprobs,
    topLogprobs: wire.top_logprobs,
    textOffset: wire.text_offset,
  };
}

function toPromptLogprobs(wire: NonNullable<WireChoice["prompt_logprobs"]>[number]) {
  if (wire === null) return null;
  return Object.fromEntries(
    Object.entries(wire).map(([id, { logprob, rank, decoded_token }]) => [
      id,
      { logprob, rank, decodedToken: decoded_token },
    ]),
  );
}
