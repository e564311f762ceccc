import type { GenerationEvent } from "../core/generation-event.js";

export interface SequenceEvent {
  /** The sequence's key. */
  readonly key: number;
  readonly event: GenerationEvent;
}

/** Takes the events of many sequences at once, in order. */
export type EventSink = (events: readonly SequenceEvent[]) => void;

/** Collects events so that one message carries those of all sequences. */
export class EventOutbox {
  #events: SequenceEvent[] = [];

  constructor(private readonly sink: EventSink) {}

  push(key: number, event: GenerationEvent): void {
    this.#events.push({ key, event });
  }

  flush(): void {
    if (this.#events.length === 0) return;
    const events = this.#events;
    this.#events = [];
    this.sink(events);
  }
}
