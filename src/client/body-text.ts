import type { CallScope } from "./call-scope.js";
import { MblmProtocolError } from "./errors.js";

/**
 * The body of an answer as text, as it comes; characters are never split. Leaving early cancels it.
 *
 * @param type what its content type must begin with
 * @throws MblmProtocolError for another content type; MblmConnectionError when the body breaks off
 */
export async function* bodyText(response: Response, type: string, scope: CallScope): AsyncGenerator<string, void> {
  const given = response.headers.get("content-type") ?? "no content type";
  if (!given.startsWith(type) || response.body === null) {
    throw new MblmProtocolError(`the answer is ${given}, not ${type}`);
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder(); // drops a byte order mark, as the formats allow
  try {
    for (;;) {
      const { done, value } = await scope.wait(reader.read());
      if (done) break;
      yield decoder.decode(value, { stream: true });
    }
    yield decoder.decode();
  } finally {
    // When it is not at its end; a failure to cancel what has failed is no news.
    void reader.cancel().catch(() => {});
  }
}
