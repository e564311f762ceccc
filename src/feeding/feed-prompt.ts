import { requireRoom } from "../core/check-request.js";
import type { Clock } from "../core/clock.js";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { type SequenceState, stateLength } from "../core/state-snapshot.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import type { BodyReader } from "./body-reader.js";
import { feedPiece, type PieceRequest } from "./feed-piece.js";
import { PieceSize } from "./piece-size.js";
import type { PromptProgress } from "./prompt-progress.js";

export interface FeedPromptOptions {
  /** One of the generations that follow; with what the prompt follows. */
  readonly request: GenerationRequest;
  readonly progress: PromptProgress;
  readonly clock: Clock;
  /** Called once, when the engine has taken the first piece and it was not the only one. */
  readonly onBegun: () => void;
}

/** A prompt that has been fed but for its last bytes. */
export interface FedPrompt {
  /** After what was fed; of a short prompt, what it follows. */
  readonly state: SequenceState | undefined;
  /** The last bytes, which generations begin with. */
  readonly rest: Uint16Array;
  /** Of the whole prompt. */
  readonly numBytes: number;
  /** Bytes that came from the prefix cache. */
  readonly cachedBytes: number;
  readonly queueSeconds: number;
  readonly prefillSeconds: number;
  readonly prefillChunks: number;
}

/**
 * Feeds a prompt while it arrives, piece by piece. Between pieces its state is here and no slot is held, so that a slow sender
 * costs nothing. A prompt that comes at once and is short is not fed but returned.
 *
 * @throws MblmError when the first piece is refused, the engine fails, the prompt becomes too long, or what `next` of the body
 *   throws; later pieces wait for room
 */
export async function feedPrompt(
  engine: EngineClient,
  body: BodyReader,
  stop: AbortSignal,
  { request, progress, clock, onBegun }: FeedPromptOptions,
): Promise<FedPrompt> {
  const { resume, stop: conditions } = request;
  const before = resume === undefined ? 0 : stateLength(resume);
  const one = toPieceRequest(request);
  const size = new PieceSize();
  const total = { cachedBytes: 0, queueSeconds: 0, prefillSeconds: 0, prefillChunks: 0 };
  let state = resume;
  for (let isFirst = true; ; isFirst = false) {
    const piece = await body.next(size.bytes, stop);
    requireRoom(before + body.numBytes, conditions.maxNewBytes, engine.info.maxLength);
    const rest = new Uint16Array(piece);
    if (body.isAtEnd) return { state, rest, numBytes: body.numBytes, ...total };
    const startedAt = clock.now();
    for await (const event of feedPiece(engine, { ...one, waitsForRoom: !isFirst }, rest, state, stop)) {
      if (event.type === "started" && isFirst) onBegun();
      if (event.type !== "finished") continue;
      const { usage, timings } = event;
      state = event.state;
      total.cachedBytes += usage.cachedBytes;
      total.queueSeconds += timings.queueSeconds;
      total.prefillSeconds += timings.prefillSeconds;
      total.prefillChunks += timings.prefillChunks;
    }
    size.observe(piece.length, clock.now() - startedAt);
    progress.add(piece.length);
  }
}

function toPieceRequest({ id, priority, cacheSalt }: GenerationRequest): PieceRequest {
  return {
    id,
    isPartOfLong: true,
    ...(priority === undefined ? {} : { priority }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
  };
}

/**
 * The events of a generation behind a prompt that was fed: usage and times are the whole prompt's.
 *
 * @param onFed called when its last bytes have been fed, too
 */
export async function* afterFeeding(
  events: AsyncIterable<GenerationEvent>,
  fed: FedPrompt,
  onFed: () => void,
): AsyncGenerator<GenerationEvent> {
  let isFed = false;
  for await (const event of events) {
    if (!isFed && event.type !== "started") {
      isFed = true;
      onFed();
    }
    if (event.type !== "finished") {
      yield event;
      continue;
    }
    const { usage, timings } = event;
    yield {
      ...event,
      usage: { ...usage, promptBytes: fed.numBytes, cachedBytes: usage.cachedBytes + fed.cachedBytes },
      timings: {
        ...timings,
        queueSeconds: timings.queueSeconds + fed.queueSeconds,
        prefillSeconds: timings.prefillSeconds + fed.prefillSeconds,
        prefillChunks: timings.prefillChunks + fed.prefillChunks,
      },
    };
  }
}
