import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openSessionStore, type SessionStoreOptions } from "../../src/session/open-session-store.js";
import type { SessionStore } from "../../src/session/session-store.js";
import { scratchFolder } from "../scratch-folder.js";
import { state } from "./states.js";
import { hasValkey, ValkeyServer } from "./valkey-server.js";

const folder = scratchFolder("stores");
let valkey: ValkeyServer | undefined;
let numPrefixes = 0;
const opened: SessionStore[] = [];

beforeAll(async () => {
  if (hasValkey) valkey = await ValkeyServer.start();
}, 30_000);
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(async () => {
  await valkey?.stop();
});

const OPTIONS: SessionStoreOptions = {
  maxSessions: 100,
  maxBytes: 1e9,
  ttlSeconds: 100,
  dir: "",
  maxDiskBytes: 1e9,
  url: "",
  prefix: "test",
  save: "change",
  now: () => Date.now() / 1000,
  report: () => {},
};

type Opener = (options?: Partial<SessionStoreOptions>) => Promise<SessionStore>;
async function open(options: SessionStoreOptions): Promise<SessionStore> {
  const store = await openSessionStore(options);
  opened.push(store);
  return store;
}
const inMemory: Opener = (options = {}) => open({ ...OPTIONS, ...options });
const onDisk: Opener = (options = {}) => open({ ...OPTIONS, dir: join(folder, `${numPrefixes++}`), ...options });
const inValkey: Opener = (options = {}) =>
  open({ ...OPTIONS, url: valkey!.url, prefix: `test${numPrefixes++}`, ...options });
const KINDS: [string, Opener][] = [
  ["memory", inMemory],
  ["disk", onDisk],
  ...(hasValkey ? ([["valkey", inValkey]] satisfies [string, Opener][]) : []),
];

describe.each(KINDS)("sessions in %s", (kind, openStore) => {
  it("are made, read, changed, listed and deleted", async () => {
    const store = await openStore();
    const made = await store.create("a", state(5));
    expect(made).toMatchObject({ id: "a", length: 5, state: state(5) });
    const { id } = await store.create();
    expect(await store.get(id)).toMatchObject({ length: 0, state: undefined });
    const acquired = await store.acquire("a");
    const before = await acquired.read();
    expect(before.state).toEqual(state(5));
    const progress = { ...before.progress, frames: 3, bytesSaid: 2, bytes: Uint8Array.of(8, 9) };
    expect(await acquired.commit({ state: state(6), progress })).toMatchObject({ id: "a", length: 6, progress });
    expect((await acquired.read()).state).toEqual(state(6));
    await acquired.end();
    expect(await store.get("a")).toMatchObject({ length: 6, state: state(6), progress });
    expect((await store.list()).map(({ id, length }) => [id, length]).sort()).toEqual(
      [
        ["a", 6],
        [id, 0],
      ].sort(),
    );
    expect(await store.stats()).toMatchObject({ numSessions: 2, isUp: true });
    await store.delete("a");
    await expect(store.get("a")).rejects.toMatchObject({ code: "session_not_found" });
    await expect(store.delete("a")).rejects.toMatchObject({ code: "session_not_found" });
    await expect(store.acquire("a")).rejects.toMatchObject({ code: "session_not_found" });
    expect(await store.list()).toHaveLength(1);
  });

  it("are one at a time, and have bounds", async () => {
    const store = await openStore({ maxSessions: 2 });
    await store.create("a");
    await expect(store.create("a")).rejects.toMatchObject({ code: "session_conflict" });
    await expect(store.create("../a")).rejects.toMatchObject({ code: "invalid_request" });
    await store.create("b");
    await expect(store.create("c")).rejects.toMatchObject({ code: "overloaded" });
    const acquired = await store.acquire("a");
    await expect(store.acquire("a")).rejects.toMatchObject({ code: "session_conflict" });
    await expect(store.delete("a")).rejects.toMatchObject({ code: "session_conflict" });
    await acquired.commit({ state: state(3) });
    await acquired.end();
    await (await store.acquire("a")).end();
  });

  it("are handed over to who asks for it", async () => {
    const store = await openStore();
    await store.create("a");
    let isWanted = false;
    const first = await store.acquire("a", {
      onWanted: () => {
        isWanted = true;
        void first.commit({ state: state(4) }).then(() => first.end());
      },
    });
    const second = await store.acquire("a", { takeOver: true });
    expect(isWanted).toBe(true);
    expect((await second.read()).length).toBe(4);
    await expect(first.commit({ state: state(9) })).rejects.toMatchObject({ code: "session_conflict" });
    await second.commit({ state: state(5) });
    await second.end();
    expect((await store.get("a")).length).toBe(5);
  });

  it("are had by all in turn who ask for it at the same time", async () => {
    const store = await openStore();
    await store.create("a");
    const hasHad: string[] = [];
    const taker = async (name: string): Promise<void> => {
      let letGo = (): void => {};
      const wanted = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const { end } = await store.acquire("a", { takeOver: true, onWanted: letGo });
      hasHad.push(name);
      if (hasHad.length < 3) await wanted;
      await end();
    };
    await Promise.all(["one", "two", "three"].map(taker));
    expect(hasHad.sort()).toEqual(["one", "three", "two"]);
  });

  it("stay as they are when who holds them does not let go", async () => {
    const store = await openStore();
    await store.create("a");
    const first = await store.acquire("a");
    await expect(store.acquire("a", { takeOver: true })).rejects.toMatchObject({ code: "session_conflict" });
    await first.commit({ state: state(2) });
    await first.end();
    expect((await store.get("a")).length).toBe(2);
  }, 20_000);

  it("drop the rest of an interrupted generation when something else goes on with them", async () => {
    const store = await openStore();
    const { progress } = await store.create("a");
    const partial = { request: "{}", seed: 1n, ids: Uint16Array.of(1), promptBytes: 1 };
    const first = await store.acquire("a");
    await first.commit({ state: state(2), progress: { ...progress, frames: 1, partial } });
    await first.end();
    expect((await store.get("a")).progress.partial).toEqual(partial);
    const second = await store.acquire("a");
    await second.commit({ state: state(3) });
    await second.end();
    expect((await store.get("a")).progress).toEqual({ ...progress, frames: 1 });
  });

  it.skipIf(kind === "memory")("are read from where they are stored when memory has no room", async () => {
    const store = await openStore({ maxBytes: 0 });
    for (let i = 1; i < 5; i++) await store.create(`s${i}`, state(i));
    for (let i = 1; i < 5; i++) expect((await store.get(`s${i}`)).state).toEqual(state(i));
    expect((await store.stats()).memoryBytes).toBeLessThan(2000);
  });

  it("are forgotten when nobody uses them", async () => {
    const store = await openStore({ ttlSeconds: 1 });
    await store.create("a", state(3));
    await expect.poll(() => store.list()).toEqual([]);
    await expect(store.get("a")).rejects.toMatchObject({ code: "session_not_found" });
    expect((await store.stats()).numSessions).toBe(0);
  });
});

describe.runIf(hasValkey)("sessions that several replicas share", () => {
  it("are the same for all, and held by one at a time", async () => {
    const [one, two] = [await inValkey({ prefix: "shared" }), await inValkey({ prefix: "shared" })];
    await one.create("a", state(3));
    expect((await two.get("a")).state).toEqual(state(3));
    await expect(two.create("a")).rejects.toMatchObject({ code: "session_conflict" });
    const held = await one.acquire("a");
    await expect(two.acquire("a")).rejects.toMatchObject({ code: "session_conflict" });
    await expect(two.delete("a")).rejects.toMatchObject({ code: "session_conflict" });
    await held.commit({ state: state(4) });
    await held.end();
    // Both have an older version in memory.
    expect((await two.get("a")).length).toBe(4);
    const next = await two.acquire("a");
    await next.commit({ state: state(5) });
    await next.end();
    expect((await one.get("a")).length).toBe(5);
    await two.delete("a");
    await expect(one.get("a")).rejects.toMatchObject({ code: "session_not_found" });
  });

  it("are handed over between replicas", async () => {
    const [one, two] = [await inValkey({ prefix: "handed" }), await inValkey({ prefix: "handed" })];
    await one.create("a");
    const first = await one.acquire("a", {
      onWanted: () => void first.commit({ state: state(7) }).then(() => first.end()),
    });
    const second = await two.acquire("a", { takeOver: true });
    expect((await second.read()).length).toBe(7);
    await second.end();
  });

  it("are written when they are let go, if that is the policy", async () => {
    const [one, two] = [await inValkey({ prefix: "parked", save: "park" }), await inValkey({ prefix: "parked" })];
    await one.create("a");
    const held = await one.acquire("a");
    await held.commit({ state: state(3) });
    expect((await two.get("a")).length).toBe(0);
    await held.end();
    expect((await two.get("a")).length).toBe(3);
  });

  it("are free again when their holder has died, which cannot change them any more", async () => {
    const [one, two] = [await inValkey({ prefix: "dead" }), await inValkey({ prefix: "dead" })];
    await one.create("a");
    const dead = await one.acquire("a");
    await one.close();
    await expect(dead.commit({ state: state(3) })).rejects.toMatchObject({ code: "store_unavailable" });
    const start = Date.now();
    for (;;) {
      const acquired = await two.acquire("a").catch(() => undefined);
      await acquired?.end();
      if (acquired) break;
      expect(Date.now() - start).toBeLessThan(20_000);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }, 30_000);

  it("cannot be used while Valkey is gone, and are there when it is back", async () => {
    const store = await inValkey({ prefix: "gone" });
    await store.create("a", state(3));
    await valkey!.kill();
    await expect.poll(async () => (await store.stats()).isUp).toBe(false);
    for (const attempt of [store.get("a"), store.acquire("a"), store.create("b"), store.list(), store.delete("a")]) {
      await expect(attempt).rejects.toMatchObject({ code: "store_unavailable" });
    }
    await valkey!.resume();
    await expect.poll(async () => (await store.stats()).isUp).toBe(true);
    expect((await store.get("a")).state).toEqual(state(3));
  }, 30_000);

  it("are refused, not lost, when Valkey is full", async () => {
    const full = await ValkeyServer.start({ maxMemory: "3mb" });
    try {
      const store = await inValkey({ url: full.url });
      let numMade = 0;
      const fill = async (): Promise<void> => {
        for (; numMade < 100; numMade++) await store.create(`s${numMade}`, state(2, 20_000));
      };
      await expect(fill()).rejects.toMatchObject({ code: "overloaded" });
      expect(numMade).toBeGreaterThan(1);
      for (let i = 0; i < numMade; i++) expect((await store.get(`s${i}`)).state).toEqual(state(2, 20_000));
    } finally {
      await full.stop();
    }
  });
});

it.each([
  ["session_url", { url: "redis://user:secret@127.0.0.1:9" }, "session_url: redis://***@127.0.0.1:9 cannot be reached"],
  ["session_dir", { url: "redis://127.0.0.1:9", dir: folder }, "session_url: cannot be used together with session_dir"],
  ["session_save", { url: "redis://127.0.0.1:9", save: "shutdown" as const }, "session_save: "],
])("says what is wrong with %s", async (_, options, message) => {
  await expect(open({ ...OPTIONS, ...options })).rejects.toThrow(message);
});
