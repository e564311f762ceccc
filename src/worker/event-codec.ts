import type { GenerationEvent } from "../core/generation-event.js";
import type { SequenceEvent } from "../engine/event-outbox.js";

/**
 * Consecutive `bytes` events without log-probs, one after another: low and high half of the key, number of ids, ids.
 * Cloning an object per event would cost the engine's thread more than the rest of what it does for a sequence's turn.
 */
export type PackedBytes = Uint16Array;

/** Events on their way between threads, in order. */
export type EventMessages = readonly (SequenceEvent | PackedBytes)[];

const HEADER_LENGTH = 3;
const HALF = 2 ** 16;

export function encodeEvents(events: readonly SequenceEvent[]): EventMessages {
  const messages: (SequenceEvent | PackedBytes)[] = [];
  for (let i = 0; i < events.length; ) {
    let end = i;
    let length = 0;
    for (; end < events.length && isPackable(events[end]!); end++) {
      length += HEADER_LENGTH + (events[end]!.event as BytesEvent).ids.length;
    }
    if (end === i) messages.push(events[i++]!);
    else messages.push(pack(events.slice(i, end), length));
    i = Math.max(i, end);
  }
  return messages;
}

/** Hands out each event, in order. */
export function decodeEvents(messages: EventMessages, receive: (key: number, event: GenerationEvent) => void): void {
  for (const message of messages) {
    if (!(message instanceof Uint16Array)) {
      receive(message.key, message.event);
      continue;
    }
    for (let i = 0; i < message.length; ) {
      const key = message[i]! + HALF * message[i + 1]!;
      const begin = i + HEADER_LENGTH;
      i = begin + message[i + 2]!;
      receive(key, { type: "bytes", ids: message.slice(begin, i) });
    }
  }
}

type BytesEvent = Extract<GenerationEvent, { type: "bytes" }>;

function isPackable({ key, event }: SequenceEvent): boolean {
  return event.type === "bytes" && event.logprobs === undefined && key < HALF * HALF && event.ids.length < HALF;
}

function pack(events: readonly SequenceEvent[], length: number): PackedBytes {
  const packed = new Uint16Array(length);
  let i = 0;
  for (const { key, event } of events) {
    const { ids } = event as BytesEvent;
    packed[i] = key % HALF;
    packed[i + 1] = Math.floor(key / HALF);
    packed[i + 2] = ids.length;
    packed.set(ids, i + HEADER_LENGTH);
    i += HEADER_LENGTH + ids.length;
  }
  return packed;
}
