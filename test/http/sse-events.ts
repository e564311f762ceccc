import { createParser } from "eventsource-parser";

export interface SentEvent {
  /** Undefined for one without a type. */
  readonly event: string | undefined;
  readonly data: string;
}

/** All events of an answer, read by an independent parser. */
export async function readEvents(response: Response): Promise<SentEvent[]> {
  const events: SentEvent[] = [];
  const parser = createParser({ onEvent: ({ event, data }) => events.push({ event, data }) });
  parser.feed(await response.text());
  return events;
}
