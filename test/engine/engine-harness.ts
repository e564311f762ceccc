import type { Clock } from "../../src/core/clock.js";
import type { ByteLogprobs, GenerationEvent } from "../../src/core/generation-event.js";
import type { GenerationRequest } from "../../src/core/generation-request.js";
import { Engine, type EngineLimits } from "../../src/engine/engine.js";
import type { ModelRunner, PatchRunner } from "../../src/engine/model-runner-interface.js";

export class FakeClock implements Clock {
  seconds = 0;

  now(): number {
    return this.seconds;
  }
}

export interface Output {
  readonly ids: number[];
  readonly logprobs: ByteLogprobs[];
  /** Log-probs of prompt ids. */
  readonly promptLogprobs: number[];
  readonly last: GenerationEvent;
}

/** An engine whose events are collected by key, and which sees to it that nothing follows a terminal event. */
export class EngineHarness {
  readonly clock = new FakeClock();
  readonly engine: Engine;
  readonly events = new Map<number, GenerationEvent[]>();
  /** Number of events in every message. */
  readonly messages: number[] = [];
  #nextKey = 0;

  constructor(
    readonly runner: ModelRunner | PatchRunner,
    limits: Partial<EngineLimits> = {},
  ) {
    const all = { maxWaiting: 1000, maxQueuedPromptBytes: 1e9, prefixCacheBytes: 0, ...limits };
    this.engine = new Engine(runner, this.clock, all, (events) => {
      this.messages.push(events.length);
      for (const { key, event } of events) this.#record(key, event);
    });
  }

  submit(request: GenerationRequest): number {
    const key = this.#nextKey++;
    this.engine.submit(key, request);
    return key;
  }

  async runToEnd(): Promise<void> {
    for (let steps = 0; this.engine.hasWork; steps++) {
      if (steps > 100_000) throw new Error("the engine does not come to an end");
      await this.engine.step();
    }
  }

  eventsOf(key: number): readonly GenerationEvent[] {
    return this.events.get(key) ?? [];
  }

  outputOf(key: number): Output {
    const ids: number[] = [];
    const logprobs: ByteLogprobs[] = [];
    const promptLogprobs: number[] = [];
    const events = this.eventsOf(key);
    for (const event of events) {
      if (event.type === "prompt") promptLogprobs.push(...event.scores.logprobs);
      if (event.type !== "bytes") continue;
      ids.push(...event.ids);
      logprobs.push(...(event.logprobs ?? []));
    }
    return { ids, logprobs, promptLogprobs, last: events.at(-1)! };
  }

  #record(key: number, event: GenerationEvent): void {
    const events = this.events.get(key) ?? [];
    this.events.set(key, events);
    const last = events.at(-1);
    if (last?.type === "finished" || last?.type === "failed") throw new Error(`event after the end: ${event.type}`);
    if ((events.length === 0) !== (event.type === "started")) throw new Error(`started is not the first of ${key}`);
    events.push(event);
  }
}

/** What one request gives when nothing else runs. */
export async function runAlone(runner: ModelRunner | PatchRunner, request: GenerationRequest): Promise<Output> {
  const harness = new EngineHarness(runner);
  const key = harness.submit(request);
  await harness.runToEnd();
  return harness.outputOf(key);
}
