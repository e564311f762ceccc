import { createParser } from "eventsource-parser";

/** The data of server-sent events; comments and events without data are passed over. */
export async function* eventData(text: AsyncIterable<string>): AsyncGenerator<string, void> {
  let events: string[] = [];
  const parser = createParser({ onEvent: ({ data }) => events.push(data) });
  const take = (): string[] => {
    const ready = events;
    events = [];
    return ready;
  };
  let isAfterCr = false;
  for await (const piece of text) {
    parser.feed(piece);
    if (piece !== "") isAfterCr = piece.endsWith("\r");
    yield* take();
  }
  // The parser waits for what follows a CR, which may be the line's end by itself: at the end of the text it is.
  if (isAfterCr) parser.feed("\n");
  yield* take();
}
