import { setImmediate as nextTurn } from "node:timers/promises";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { MblmConnectionError, MblmTimeoutError } from "../../src/client/errors.js";
import type { MblmClient } from "../../src/client/mblm-client.js";
import {
  chunk,
  collect,
  DONE,
  events,
  failure,
  hold,
  LAST,
  NDJSON,
  parts,
  SSE,
  useScriptedServer,
} from "./scripted-server.js";

const server = useScriptedServer();
const ask = { prompt: "x" };
const open = parts(SSE, [chunk({ text: "a" })], hold);
const bytes = Uint8Array.of(1);

type Call = (client: MblmClient, signal: AbortSignal) => Promise<unknown>;
const CALLS: [string, Call][] = [
  ["complete", (client, signal) => client.complete(ask, { signal })],
  ["streamBytes", (client, signal) => collect(client.streamBytes(ask, { signal }))],
  ["streamText", (client, signal) => collect(client.streamText(ask, { signal }))],
  ["score", (client, signal) => client.score(bytes, { signal })],
  ["scoreStream", (client, signal) => collect(client.scoreStream(bytes, { return: "logprobs", signal }))],
  ["models", (client, signal) => client.models({ signal })],
  ["health", (client, signal) => client.health({ signal })],
];

/** The client's clock stands still unless it is told to go on: the time that this machine takes does not count. */
async function withStoppedClock(work: () => Promise<void>): Promise<void> {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    await work();
  } finally {
    vi.useRealTimers();
  }
}

describe.each(CALLS)("%s", (_, call) => {
  it("is not sent for a signal that is aborted", async () => {
    expect(await failure(call(server.client(), AbortSignal.abort("before")))).toBe("before");
    expect(server.received).toHaveLength(0);
  });

  it("is cancelled while it waits for the answer, which the server sees", async () => {
    const controller = new AbortController();
    server.script(() => controller.abort());
    expect(await failure(call(server.client(), controller.signal))).toMatchObject({ name: "AbortError" });
    await server.received[0]!.closed;
    expect(server.received).toHaveLength(1);
  });

  it("gives up on a silent server", async () => {
    await withStoppedClock(async () => {
      server.script(hold);
      const silence = failure(call(server.client({ timeoutMs: 30 }), new AbortController().signal));
      while (server.received.length === 0) await nextTurn();
      vi.advanceTimersByTime(30);
      const error = await silence;
      expect(error).toBeInstanceOf(MblmTimeoutError);
      expect(error).toBeInstanceOf(MblmConnectionError);
      await server.received[0]!.closed;
    });
  });
});

describe("a stream that has begun", () => {
  it("is cancelled by its signal, which the server sees", async () => {
    const controller = new AbortController();
    server.script(open);
    const stream = server.client().streamText(ask, { signal: controller.signal });
    const seen: string[] = [];
    const thrown = await failure(
      (async () => {
        for await (const text of stream) {
          seen.push(text);
          setImmediate(() => controller.abort(new Error("mine")));
        }
      })(),
    );
    expect(seen).toEqual(["a"]);
    expect(thrown).toEqual(new Error("mine"));
    await server.received[0]!.closed;
  });

  it("delivers nothing after an abort, even if it has all of it", async () => {
    const controller = new AbortController();
    server.script(events([chunk({ text: "a" }), chunk({ text: "b" }), LAST, DONE].join("")));
    const pieces = server.client().streamText(ask, { signal: controller.signal })[Symbol.asyncIterator]();
    expect(await pieces.next()).toEqual({ done: false, value: "a" });
    controller.abort("now");
    expect(await failure(pieces.next())).toBe("now");
  });

  it("is cancelled by leaving the loop", async () => {
    server.script(open, parts(NDJSON, ['{"offset":0,"logprobs":[-1]}\n'], hold));
    for await (const text of server.client().streamText(ask)) {
      expect(text).toBe("a");
      break;
    }
    await server.received[0]!.closed;
    await failure(
      (async () => {
        for await (const _ of server.client().scoreStream(bytes, { return: "logprobs" })) throw new Error("leave");
      })(),
    );
    await server.received[1]!.closed;
  });

  it.each([
    ["between pieces", false],
    ["while a piece is awaited", true],
  ])("is cancelled as a web stream %s", async (_, isWaiting) => {
    server.script(open);
    const reader = server.client().streamBytes(ask).toReadableStream().getReader();
    expect(await reader.read()).toEqual({ done: false, value: Uint8Array.of(97) });
    const pending = isWaiting ? reader.read() : undefined;
    await reader.cancel();
    await server.received[0]!.closed;
    if (pending) expect(await pending).toEqual({ done: true, value: undefined });
  });

  it("is cancelled as a web stream before its answer has begun", async () => {
    let arrive!: () => void;
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    server.script(() => arrive());
    const reader = server.client().streamBytes(ask).toReadableStream().getReader();
    const pending = reader.read();
    await arrived;
    await reader.cancel();
    await server.received[0]!.closed;
    expect(await pending).toEqual({ done: true, value: undefined });
  });

  it("cancels the body of a fetch that knows no signals", async () => {
    const body = new TransformStream<Uint8Array, Uint8Array>();
    const writer = body.writable.getWriter();
    void writer.write(new TextEncoder().encode(chunk({ text: "a" }))).catch(() => {});
    const fetch = async () => new Response(body.readable, { headers: { "content-type": SSE } });
    for await (const _ of server.client({ fetch }).streamText(ask)) break;
    await expect(writer.closed).rejects.toBeUndefined();
  });

  it("gives up when it falls silent; the caller's own pauses do not count", async () => {
    await withStoppedClock(async () => {
      server.script(parts(SSE, [chunk({ text: "a" }) + chunk({ text: "b" })], hold));
      const pieces = server.client().streamText(ask, { timeoutMs: 40 })[Symbol.asyncIterator]();
      expect((await pieces.next()).value).toBe("a");
      vi.advanceTimersByTime(80);
      expect((await pieces.next()).value).toBe("b");
      const silence = failure(pieces.next());
      while (vi.getTimerCount() === 0) await nextTurn();
      vi.advanceTimersByTime(40);
      expect(await silence).toBeInstanceOf(MblmTimeoutError);
      await server.received[0]!.closed;
    });
  });

  it("leaves no listener on the signal", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let numListeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      numListeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      numListeners--;
      remove(...args);
    };
    server.script(events(LAST, DONE), open, events(chunk({ text: "a" })));
    const client = server.client();
    await collect(client.streamText(ask, { signal }));
    for await (const _ of client.streamText(ask, { signal })) break;
    await failure(collect(client.streamText(ask, { signal })));
    expect(server.received).toHaveLength(3);
    expect(numListeners).toBe(0);
  });
});

describe("the source of bytes that are sent is released", () => {
  let isReleased = false;
  beforeEach(() => {
    isReleased = false;
  });
  /** Endless; `onPiece` is called before each piece. */
  async function* generator(onPiece: () => unknown) {
    try {
      for (;;) {
        await onPiece();
        yield bytes;
      }
    } finally {
      isReleased = true;
    }
  }
  const readable = (onPiece: () => unknown): ReadableStream<Uint8Array> =>
    new ReadableStream<Uint8Array>({
      async pull(controller) {
        await onPiece();
        if (!isReleased) controller.enqueue(bytes);
      },
      cancel() {
        isReleased = true;
      },
    });

  it.each([
    ["a generator", generator],
    ["a web stream", readable],
  ])("%s, when the call is cancelled", async (_, make) => {
    const controller = new AbortController();
    let count = 0;
    const source = make(() => {
      if (++count === 3) controller.abort("enough");
      return new Promise((resolve) => setImmediate(resolve));
    });
    expect(await failure(server.client().score(source, { signal: controller.signal }))).toBe("enough");
    await expect.poll(() => isReleased).toBe(true);
  });

  it("even if it is being waited for", async () => {
    const controller = new AbortController();
    const source = readable(() => {
      setImmediate(() => controller.abort("enough"));
      return new Promise(() => {});
    });
    expect(await failure(server.client().score(source, { signal: controller.signal }))).toBe("enough");
    await expect.poll(() => isReleased).toBe(true);
  });

  it("and not read on, even if it cannot be released", async () => {
    const controller = new AbortController();
    const tick = () => new Promise((resolve) => setImmediate(resolve));
    let count = 0;
    const next = async () => {
      if (++count === 3) controller.abort("enough");
      await tick();
      return { done: false, value: bytes };
    };
    const source = { [Symbol.asyncIterator]: () => ({ next }) };
    expect(await failure(server.client().score(source, { signal: controller.signal }))).toBe("enough");
    for (let ticks = 0; ticks < 20; ticks++) await tick();
    expect(count).toBe(3);
  });

  it("when the connection fails", async () => {
    const client = server.client({ baseUrl: "http://127.0.0.1:1" });
    const source = readable(() => new Promise((resolve) => setImmediate(resolve)));
    expect(await failure(client.score(source))).toBeInstanceOf(MblmConnectionError);
    await expect.poll(() => isReleased).toBe(true);
  });

  it("and its own failure is the call's", async () => {
    const source = generator(() => {
      throw new Error("no such file");
    });
    const error = await failure(server.client().score(source));
    expect(error).toBeInstanceOf(MblmConnectionError);
    expect((error as Error).message).toContain("no such file");
  });
});
