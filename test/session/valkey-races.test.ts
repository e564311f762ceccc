import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { encodeRecord } from "../../src/session/record-codec.js";
import { newRecord } from "../../src/session/session.js";
import { ValkeySessionStore } from "../../src/session/valkey-session-store.js";
import { ValkeySessions } from "../../src/session/valkey-sessions.js";
import { state } from "./states.js";
import { settled } from "./stepped-files.js";
import { hasValkey, ValkeyServer } from "./valkey-server.js";

/** What a test does just before the next command of this name is sent. */
let before: { readonly command: string; readonly work: () => Promise<unknown> } | undefined;

vi.mock("@redis/client", async (importOriginal) => {
  const original = await importOriginal<typeof import("@redis/client")>();
  return {
    ...original,
    createClient: (options: Parameters<typeof original.createClient>[0]) => {
      const client = original.createClient(options);
      const typed = client.withTypeMapping.bind(client);
      return Object.assign(client, {
        withTypeMapping: (mapping: Parameters<typeof typed>[0]) => {
          const inner = typed(mapping);
          return {
            sendCommand: async (command: string[]) => {
              if (before !== undefined && before.command === command[0]) {
                const { work } = before;
                before = undefined;
                await work();
              }
              return inner.sendCommand(command);
            },
          };
        },
      });
    },
  };
});

const stored = { content: Buffer.from("content"), version: "1", length: 3, createdSeconds: 1000 };

describe.runIf(hasValkey)("sessions in Valkey", () => {
  let valkey: ValkeyServer;
  let numPrefixes = 0;
  let prefix: string;
  const opened: ValkeySessions[] = [];
  beforeAll(async () => {
    valkey = await ValkeyServer.start();
  }, 30_000);
  beforeEach(() => {
    before = undefined;
    prefix = `race${numPrefixes++}`;
  });
  afterAll(async () => {
    for (const sessions of opened) sessions.close();
    await valkey.stop();
  });
  const connect = async (ttlSeconds = 100): Promise<ValkeySessions> => {
    const sessions = await ValkeySessions.connect(valkey.url, prefix, ttlSeconds, () => {});
    opened.push(sessions);
    return sessions;
  };
  const idsOf = async (sessions: ValkeySessions): Promise<string[]> => (await sessions.list()).map(({ id }) => id);

  it("that are made while one of their id is deleted are listed and counted", async () => {
    const [one, two] = [await connect(), await connect()];
    await one.create("a", stored);
    before = { command: "ZREM", work: () => two.create("a", { ...stored, version: "2" }) };
    expect(await one.delete("a")).toBe("deleted");
    expect((await one.read("a"))?.version).toBe("2");
    expect(await idsOf(one)).toEqual(["a"]);
    expect(await one.count(1000)).toBe(1);
  });

  it("that are made while one of their id is found expired are listed and counted", async () => {
    const [brief, long] = [await connect(0.05), await connect()];
    await brief.create("a", stored);
    await expect.poll(() => brief.version("a"), { timeout: 5000 }).toBeUndefined();
    before = { command: "ZREM", work: () => long.create("a", stored) };
    expect(await idsOf(long)).toEqual([]);
    expect(await idsOf(long)).toEqual(["a"]);
    expect(await long.count(1000)).toBe(1);
  });

  it("that are held for longer than unused ones are kept are counted", async () => {
    const sessions = await connect();
    await sessions.create("a", stored);
    await sessions.acquire("a", "token", 1000);
    expect(await sessions.renew("a", "token", 2000)).toBe("held");
    expect(await sessions.count(2000)).toBe(1);
    expect(await idsOf(sessions)).toEqual(["a"]);
    expect(await sessions.renew("a", "another", 9000)).toBe("lost");
    expect(await sessions.count(2000)).toBe(1);
  });

  it("are not given up for who asked the holder before", async () => {
    const sessions = await connect();
    await sessions.create("a", stored);
    await sessions.acquire("a", "first", 1000);
    expect(await sessions.acquire("a", "second", 1000)).toBe("held");
    await sessions.release("a", "first");
    await sessions.want("a"); // the first one has let go just before
    expect(await sessions.acquire("a", "second", 1000)).toBe("acquired");
    expect(await sessions.renew("a", "second", 1000)).toBe("held");
    await sessions.want("a");
    expect(await sessions.renew("a", "second", 1000)).toBe("wanted");
  });

  it("cannot be overwritten by the holder of one that has expired", async () => {
    const sessions = await connect(1);
    await sessions.create("a", stored);
    await sessions.acquire("a", "token", 1000);
    await expect.poll(() => sessions.version("a"), { timeout: 5000 }).toBeUndefined();
    expect(await sessions.create("a", { ...stored, version: "2" })).toBe(false);
    await sessions.release("a", "token");
    expect(await sessions.create("a", { ...stored, version: "2" })).toBe(true);
    expect(await sessions.save("a", "token", stored, 1000)).toBe(false);
  });

  it("have every change that was asked for before they were let go", async () => {
    const sessions = await connect();
    const limits = { maxSessions: 10, maxBytes: 1e9, ttlSeconds: 100 };
    const options = { ...limits, now: () => 1000, report: () => {} };
    const store = new ValkeySessionStore(sessions, { ...options, save: "park" });
    await store.create("a", state(3));
    const acquired = await store.acquire("a");
    let ended: Promise<void> | undefined;
    before = {
      command: "HMGET", // the change looks at what is there
      work: async () => {
        ended = acquired.end();
        await settled();
      },
    };
    await acquired.commit({ state: state(4) });
    await ended;
    expect((await store.get("a")).length).toBe(4);
    await expect(acquired.commit({ state: state(5) })).rejects.toMatchObject({ code: "session_conflict" });
    await acquired.end();
    expect((await new ValkeySessionStore(sessions, { ...options, save: "park" }).get("a")).length).toBe(4);
  });
});

it("who has let go of a session is not told any more that somebody wants it", async () => {
  vi.useFakeTimers();
  try {
    let answer: (outcome: "wanted") => void = () => {};
    const renew = vi.fn(() => new Promise<"wanted">((resolve) => (answer = resolve)));
    const fake = {
      acquire: async () => "acquired",
      version: async () => undefined,
      read: async () => ({ record: encodeRecord(newRecord(1000, state(3))), version: "1", usedSeconds: 1000 }),
      release: async () => {},
      renew,
    } as unknown as ValkeySessions;
    const limits = { maxSessions: 10, maxBytes: 1e9, ttlSeconds: 100 };
    const store = new ValkeySessionStore(fake, { ...limits, save: "change", now: () => 1000, report: () => {} });
    const onWanted = vi.fn();
    const acquired = await store.acquire("a", { onWanted });
    await vi.advanceTimersByTimeAsync(1500);
    expect(renew).toHaveBeenCalledTimes(1);
    await acquired.end();
    answer("wanted");
    await vi.advanceTimersByTimeAsync(5000);
    expect(onWanted).not.toHaveBeenCalled();
    expect(renew).toHaveBeenCalledTimes(1);
  } finally {
    vi.useRealTimers();
  }
});
