import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { EngineClient } from "../worker/engine-client-interface.js";

/** A request that the engine has taken: the events after `started`. */
export type AdmittedSequence = AsyncIterable<GenerationEvent>;

/**
 * Submits all generations of a request and resolves when the engine has taken every one, so that refusals can still be
 * answered with a status. Throws the first refusal after taking the others back.
 */
export async function admit(
  engine: EngineClient,
  requests: readonly GenerationRequest[],
  controller: AbortController,
): Promise<AdmittedSequence[]> {
  const iterators = requests.map((request) => engine.submit(request, controller.signal)[Symbol.asyncIterator]());
  const firsts = await Promise.allSettled(iterators.map((iterator) => iterator.next()));
  const refusal = firsts.find((first) => first.status === "rejected");
  if (refusal) {
    controller.abort();
    await Promise.allSettled(iterators.map((iterator) => iterator.return?.()));
    throw refusal.reason;
  }
  return iterators.map((iterator, i) =>
    resume(iterator, (firsts[i] as PromiseFulfilledResult<IteratorResult<GenerationEvent>>).value),
  );
}

/** Submits one generation and resolves when the engine has taken it. @throws MblmError its refusal */
export async function admitOne(
  engine: EngineClient,
  request: GenerationRequest,
  signal: AbortSignal,
): Promise<AdmittedSequence> {
  const iterator = engine.submit(request, signal)[Symbol.asyncIterator]();
  return resume(iterator, await iterator.next());
}

/** The iteration with its first result put back unless it is `started`. */
async function* resume(
  iterator: AsyncIterator<GenerationEvent>,
  first: IteratorResult<GenerationEvent>,
): AsyncGenerator<GenerationEvent> {
  try {
    let result = first;
    while (!result.done) {
      if (result.value.type !== "started") yield result.value;
      result = await iterator.next();
    }
  } finally {
    await iterator.return?.();
  }
}
