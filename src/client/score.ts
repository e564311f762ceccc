import { MblmApiError, toApiError } from "./api-error.js";

/** What is scored: bytes, text, or a stream of bytes of any length. */
export type ScoreInput = string | Uint8Array<ArrayBuffer> | Blob | ReadableStream<Uint8Array>;

export interface Score {
  readonly bytes: number;
  readonly bitsPerByte: number;
  /** Nats. */
  readonly totalLogprob: number;
  /** Bits; of `scoreStream` with entropies. */
  readonly meanEntropy: number | undefined;
}

/** Numbers of consecutive bytes, nats. */
export interface ScorePiece {
  /** Index of the first byte. */
  readonly offset: number;
  readonly values: readonly number[];
}

export interface WireScore {
  readonly bytes: number;
  readonly bits_per_byte: number;
  readonly total_logprob: number;
  readonly mean_entropy?: number;
}

export function toScore(wire: WireScore): Score {
  return {
    bytes: wire.bytes,
    bitsPerByte: wire.bits_per_byte,
    totalLogprob: wire.total_logprob,
    meanEntropy: wire.mean_entropy,
  };
}

/** The lines of an answer as pieces; returns the summary. @throws MblmApiError when the answer ends without one */
export async function* readScores(
  response: Response,
  kind: "logprobs" | "entropy",
): AsyncGenerator<ScorePiece, Score, void> {
  for await (const line of lines(response)) {
    const value = JSON.parse(line) as Record<string, unknown>;
    if ("error" in value) throw toApiError(value);
    if (value.object === "score") return toScore(value as unknown as WireScore);
    yield { offset: value.offset as number, values: value[kind] as number[] };
  }
  throw new MblmApiError("The answer ended before the scores did.", { code: "stream_cut" });
}

async function* lines(response: Response): AsyncGenerator<string, void, void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n");
      held = parts.pop()!;
      yield* parts;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
