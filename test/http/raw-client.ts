import { once } from "node:events";
import { connect } from "node:net";

type Failure = { error: { param: string | null; code: string; message: string } };

export interface RawAnswer<T> {
  readonly status: number;
  /** As they came, in lower case. */
  readonly headers: string;
  readonly body: T;
}

/** A connection on which a request has begun: what follows is in the hands of the test, byte by byte. */
export interface RawClient {
  write(text: string): void;
  /** Resolves when the kernel has all of it: whoever is not read is held back. */
  writeAll(text: string): Promise<void>;
  /** Resolves when the server asks for the body. */
  continued(): Promise<void>;
  /** The next answer; it must have a length and be JSON. */
  answer<T = Failure>(): Promise<RawAnswer<T>>;
  /** Closes this half. */
  end(): void;
}

const CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n";

/** @param length of the body; left out where the headers say it */
export async function connected(
  url: string,
  request: string,
  headers: readonly string[],
  length?: number,
): Promise<RawClient> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  await once(socket, "connect");
  let received = ""; // a character per byte
  let problem: Error | undefined;
  socket.on("data", (part) => {
    received += part.toString("latin1");
  });
  socket.on("error", (error) => {
    problem = error;
  });
  const lines = [`${request} HTTP/1.1`, "host: x", ...headers];
  if (length !== undefined) lines.push(`content-length: ${length}`);
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  const more = async (): Promise<void> => {
    if (socket.closed) throw problem ?? new Error("the connection was closed without an answer");
    await Promise.race([once(socket, "data"), once(socket, "close")]);
  };
  const next = (): { head: string; body: string } | undefined => {
    const end = received.indexOf("\r\n\r\n");
    if (end < 0) return undefined;
    const head = received.slice(0, end).toLowerCase();
    const size = Number(/content-length: (\d+)/.exec(head)![1]);
    const body = received.slice(end + 4, end + 4 + size);
    if (body.length < size) return undefined;
    received = received.slice(end + 4 + size);
    return { head, body };
  };
  return {
    write: (text) => void socket.write(text),
    writeAll: (text) =>
      new Promise((resolve, reject) => {
        socket.write(text, (error) => (error ? reject(error) : resolve()));
      }),
    async continued() {
      while (received.length < CONTINUE.length) await more();
      if (!received.startsWith(CONTINUE)) throw new Error(`not asked for the body: ${received}`);
      received = received.slice(CONTINUE.length);
    },
    async answer<T>() {
      let found = next();
      for (; found === undefined; found = next()) await more();
      const status = Number(/^http\/1\.1 (\d+)/.exec(found.head)![1]);
      return { status, headers: found.head, body: JSON.parse(Buffer.from(found.body, "latin1").toString()) as T };
    },
    end: () => void socket.end(),
  };
}
