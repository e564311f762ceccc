import { fromErrorField, requestIdOf } from "./api-error.js";
import { bodyText } from "./body-text.js";
import type { CallScope } from "./call-scope.js";
import { MblmConnectionError, MblmProtocolError } from "./errors.js";
import { textLines } from "./lines.js";
import { readObject } from "./read-json.js";
import type { ScoreKind, ScorePiece, ScoreSummary } from "./score.js";

/** @throws MblmProtocolError when it is no summary */
export function toScoreSummary(wire: Readonly<Record<string, unknown>>, response: Response): ScoreSummary {
  const { object, bytes, bits_per_byte: bitsPerByte, total_logprob: totalLogprob, mean_entropy: meanEntropy } = wire;
  if (object !== "score" || !isNumber(bytes) || !isNumber(bitsPerByte) || !isNumber(totalLogprob)) {
    throw new MblmProtocolError("the answer is no score");
  }
  return {
    id: typeof wire.id === "string" ? wire.id : undefined,
    model: String(wire.model),
    bytes,
    bitsPerByte,
    totalLogprob,
    meanEntropy: isNumber(meanEntropy) ? meanEntropy : undefined,
    requestId: requestIdOf(response),
  };
}

/**
 * Numbers as they come. It ends well only with a summary of as many bytes as there were numbers.
 *
 * @throws MblmApiError for an error line; MblmConnectionError when the lines are cut off; MblmProtocolError
 */
export async function* readScoreStream<K extends ScoreKind>(
  response: Response,
  kind: K,
  scope: CallScope,
): AsyncGenerator<ScorePiece<K>, ScoreSummary> {
  let numBytes = 0;
  for await (const line of textLines(bodyText(response, "application/x-ndjson", scope))) {
    const wire = readObject(line);
    if ("error" in wire) throw fromErrorField(wire.error, response);
    if (wire.object === "score") {
      const summary = toScoreSummary(wire, response);
      if (summary.bytes !== numBytes) throw new MblmProtocolError(`${summary.bytes} bytes, but ${numBytes} numbers`);
      return summary;
    }
    const numbers = wire[kind];
    if (!Array.isArray(numbers) || !numbers.every(isNumber) || wire.offset !== numBytes) {
      throw new MblmProtocolError(`the line after ${numBytes} numbers does not go on with ${kind}`);
    }
    yield { offset: numBytes, [kind]: Float64Array.from(numbers) } as ScorePiece<K>;
    numBytes += numbers.length;
  }
  throw new MblmConnectionError("the answer broke off: it has no summary");
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}
