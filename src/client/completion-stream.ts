import { fromErrorField, requestIdOf } from "./api-error.js";
import { bodyText } from "./body-text.js";
import type { CallScope } from "./call-scope.js";
import type { ChoiceEnd, ChoicePiece, ChoiceStreamEnd, CompletionHead, StreamEnd, Usage } from "./completion.js";
import { asCompletion, toChoicePiece, toHead, toUsage } from "./completion-answer.js";
import { MblmConnectionError, MblmProtocolError } from "./errors.js";
import { readObject } from "./read-json.js";
import { eventData } from "./sse.js";
import type { WireProgress } from "./wire.js";

/** What a stream must bring to be whole. */
export interface ExpectedStream {
  readonly numChoices: number;
  readonly echo: boolean;
  /** Told of the reports that come before the completion of an upload. */
  readonly onProgress?: ((wire: WireProgress) => void) | undefined;
}

/**
 * Pieces of all choices as they come. It ends well only if every choice said why it ended, and the stream itself that it
 * is whole.
 *
 * @throws MblmApiError for an error event; MblmConnectionError when the stream is cut off; MblmProtocolError
 */
export async function* readCompletionStream(
  response: Response,
  { numChoices, echo, onProgress }: ExpectedStream,
  scope: CallScope,
): AsyncGenerator<ChoicePiece, ChoiceStreamEnd> {
  const ends: ChoiceEnd[] = [];
  let head: CompletionHead | undefined;
  let usage: Usage | undefined;
  let isWhole = false;
  for await (const data of eventData(bodyText(response, "text/event-stream", scope))) {
    if (data === "[DONE]") {
      isWhole = true;
      break;
    }
    const event = readObject(data);
    if ("error" in event) throw fromErrorField(event.error, response);
    if (event.object === "upload.progress") {
      onProgress?.(event as WireProgress);
      continue;
    }
    const chunk = asCompletion(event);
    head ??= toHead(chunk, requestIdOf(response));
    if (chunk.usage) usage = toUsage(chunk.usage);
    for (const choice of chunk.choices) {
      const piece = toChoicePiece(choice, echo);
      const { index, finishReason, stopReason } = piece;
      if (finishReason !== null) ends[index] = { finishReason, stopReason };
      yield piece;
    }
  }
  if (!isWhole) throw new MblmConnectionError("the stream broke off: it did not say that it is whole");
  if (head === undefined || Object.keys(ends).length < numChoices) {
    throw new MblmConnectionError("the stream ended before its choices did: the server gave up");
  }
  return { ...head, choices: ends, usage };
}

/** One part of every piece of the only choice, where it is not empty. */
export async function* mapSingleChoice<T extends { readonly length: number }>(
  pieces: AsyncGenerator<ChoicePiece, ChoiceStreamEnd>,
  part: (piece: ChoicePiece) => T,
): AsyncGenerator<T, StreamEnd> {
  try {
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) {
        const { choices, ...rest } = value;
        return { ...rest, ...choices[0]! };
      }
      if (value.index !== 0) throw new MblmProtocolError("the stream has a choice that was not asked for");
      const found = part(value);
      if (found.length > 0) yield found;
    }
  } finally {
    await pieces.return(undefined as unknown as ChoiceStreamEnd);
  }
}
