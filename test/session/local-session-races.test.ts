import { beforeEach, describe, expect, it, vi } from "vitest";
import { type LocalSessionOptions, LocalSessionStore } from "../../src/session/local-session-store.js";
import { acquireOrCreate, notFound, type SessionStore } from "../../src/session/session-store.js";
import { state } from "./states.js";
import { SteppedFiles, settled } from "./stepped-files.js";

let files: SteppedFiles;
let seconds: number;
let reported: string[];
beforeEach(() => {
  files = new SteppedFiles();
  seconds = 1000;
  reported = [];
});

const open = (options: Partial<LocalSessionOptions> = {}): Promise<LocalSessionStore> =>
  LocalSessionStore.open({
    maxSessions: 100,
    maxBytes: 1e9,
    ttlSeconds: 100,
    files,
    save: "change",
    maxStoredBytes: 1e9,
    now: () => seconds,
    report: ({ message }) => reported.push(message),
    ...options,
  });

/** A store that finds these on its disk, with nothing in memory. */
async function openWith(
  ids: readonly string[],
  options: Partial<LocalSessionOptions> = {},
): Promise<LocalSessionStore> {
  const before = await open();
  for (const id of ids) await before.create(id, state(10));
  files.log.length = 0;
  return open(options);
}

/** What the store counts is what is there. */
async function expectExactCounts(store: LocalSessionStore): Promise<void> {
  const { storedBytes, memoryBytes, numInMemory, numSessions } = await store.stats();
  expect(storedBytes).toBe(files.bytes);
  expect(numSessions).toBe(files.contents.size);
  expect(memoryBytes > 0).toBe(numInMemory > 0);
}

const codes = async (attempts: readonly Promise<unknown>[]): Promise<string[]> =>
  (await Promise.allSettled(attempts)).map((result) => (result.status === "fulfilled" ? "done" : result.reason.code));

describe("sessions that expire", () => {
  it("do not take a new one of their id with them", async () => {
    const store = await openWith(["a", "b", "c"]);
    seconds += 1000;
    const removal = files.hold("remove", "a");
    const listed = store.list();
    await removal.reached;
    const made = store.create("c", state(7));
    await settled();
    removal.go();
    expect((await made).length).toBe(7);
    expect(await listed).toEqual([]);
    await settled();
    expect((await store.list()).map(({ id }) => id)).toEqual(["c"]);
    expect((await store.get("c")).state).toEqual(state(7));
    expect([...files.contents.keys()]).toEqual(["c"]);
    await expectExactCounts(store);
  });

  it("are no hindrance to others when their files cannot be removed", async () => {
    const store = await openWith(["old"]);
    seconds += 60;
    await store.create("young", state(3));
    seconds += 60;
    files.hold("remove", "old").go(new Error("the disk is broken"));
    expect((await store.get("young")).length).toBe(3);
    await settled();
    expect(reported).toEqual(["the disk is broken"]);
    expect((await store.list()).map(({ id }) => id)).toEqual(["young"]);
  });

  it("were not in use until just now", async () => {
    const store = await openWith(["a"]);
    const acquired = await store.acquire("a");
    seconds += 1000;
    await acquired.end();
    expect((await store.get("a")).length).toBe(10);
    seconds += 1000;
    expect(await store.list()).toEqual([]);
  });
});

describe("a session that is deleted", () => {
  it("whose file cannot be removed is said to be there after a restart", async () => {
    const store = await openWith(["a"]);
    files.hold("remove", "a").go(new Error("the disk is broken"));
    await expect(store.delete("a")).rejects.toMatchObject({
      code: "store_unavailable",
      message: expect.stringMatching(/the disk is broken; it is a session again after a restart/),
    });
    expect(await store.list()).toEqual([]);
    expect(await store.stats()).toMatchObject({ numSessions: 0, memoryBytes: 0, storedBytes: 0 });
  });

  it("while it is read is not there for who reads it, and takes no memory", async () => {
    const store = await openWith(["a"]);
    const reading = files.hold("read", "a");
    const got = store.get("a");
    await reading.reached;
    const deleted = store.delete("a");
    await settled();
    reading.go();
    expect(await codes([got, deleted])).toEqual(["session_not_found", "done"]);
    expect((await store.stats()).memoryBytes).toBe(0);
    await expectExactCounts(store);
  });

  it("while it is read does not come back in place of a new one", async () => {
    const store = await openWith(["a"]);
    const reading = files.hold("read", "a");
    const got = store.get("a");
    await reading.reached;
    const deleted = store.delete("a");
    const made = settled().then(() => store.create("a", state(5)));
    await settled();
    reading.go();
    expect(await codes([got, deleted, made])).toEqual(["session_not_found", "done", "done"]);
    expect((await store.get("a")).state).toEqual(state(5));
    await store.delete("a");
    expect((await store.stats()).memoryBytes).toBe(0);
    await expectExactCounts(store);
  });

  it("while it is written to leave the memory leaves nothing", async () => {
    const store = await open({ save: "shutdown", maxBytes: 1000 });
    await store.create("a", state(10));
    const writing = files.hold("write", "a");
    const made = store.create("b", state(10));
    await writing.reached;
    const deleted = store.delete("a");
    await settled();
    writing.go();
    expect(await codes([made, deleted])).toEqual(["done", "done"]);
    expect(files.contents.size).toBe(0);
    expect((await store.stats()).storedBytes).toBe(0);
    expect((await store.list()).map(({ id }) => id)).toEqual(["b"]);
  });

  it("between two holders is not there for the second one", async () => {
    const store = await open({ files: undefined });
    await store.create("a", state(3));
    let deleted: Promise<void> | undefined;
    const first = await store.acquire("a", {
      onWanted: () => {
        deleted = first.end().then(() => store.delete("a"));
      },
    });
    const second = store.acquire("a", { takeOver: true });
    const [outcome] = await codes([second]);
    // Whoever comes first, the other one hears what is the case.
    const expected = outcome === "done" ? ["done", "session_conflict"] : ["session_not_found", "done"];
    expect(await codes([second, deleted!])).toEqual(expected);
  });
});

describe("a session that is being made", () => {
  it("is not seen before it is stored, nor by anybody if it never is", async () => {
    const store = await open();
    const writing = files.hold("write", "a");
    const made = store.create("a", state(5));
    await writing.reached;
    const waiting = codes([store.acquire("a")]);
    expect(await codes([store.get("a"), store.delete("a"), store.create("a")])).toEqual([
      "session_not_found",
      "session_conflict",
      "session_conflict",
    ]);
    expect(await store.list()).toEqual([]);
    writing.go(new Error("the disk is broken"));
    await expect(made).rejects.toMatchObject({ code: "store_unavailable" });
    expect(await waiting).toEqual(["session_not_found"]);
    expect(await store.list()).toEqual([]);
    await store.create("a", state(6));
    expect((await store.get("a")).length).toBe(6);
    await expectExactCounts(store);
  });

  it.each([false, true])("is in nobody's use, and had by who waits for it", async (takeOver) => {
    const store = await open();
    const writing = files.hold("write", "a");
    const made = store.create("a", state(5));
    await writing.reached;
    const acquired = store.acquire("a", { takeOver });
    await settled();
    writing.go();
    await made;
    expect((await (await acquired).read()).length).toBe(5);
  });

  it("is answered with its state, even when that has left the memory again", async () => {
    const store = await open({ save: "park", maxBytes: 1000 });
    await store.create("held", state(10));
    const held = await store.acquire("held");
    await held.commit({ state: state(11) });
    const writing = files.hold("write", "held");
    const made = store.create("a", state(12)); // has to wait until the other one is written, and may leave the memory
    await writing.reached;
    expect((await store.get("held")).length).toBe(11); // takes the memory
    writing.go();
    expect((await made).length).toBe(12);
    expect((await store.get("a")).state).toEqual(state(12));
    await held.end();
    await expectExactCounts(store);
  });
});

describe("a session that several make and use at once", () => {
  const use = (store: SessionStore) =>
    acquireOrCreate(store, "a", {}).then(async (acquired) => {
      await settled();
      await acquired.end();
    });

  it("is made once, whoever does it; one has it, and the others hear that it is in use", async () => {
    const store = await open();
    const outcomes = await codes([use(store), use(store), use(store)]);
    expect(outcomes.sort()).toEqual(["done", "session_conflict", "session_conflict"]);
    expect(files.log).toEqual(["write a"]);
  });

  it("is there for who finds that somebody else has just made it", async () => {
    const store = await open();
    const made = codes([store.create("a")]);
    await expect(use(store)).resolves.toBeUndefined();
    expect(await made).toEqual(["done"]);
    await store.delete("a");
    // The other one comes in between.
    const find = vi.spyOn(store, "acquire").mockImplementationOnce(async () => {
      find.mockRestore();
      await store.create("a");
      throw notFound("a");
    });
    await expect(use(store)).resolves.toBeUndefined();
  });

  it("is made by the next one when it could not be made", async () => {
    const store = await open();
    const writing = files.hold("write", "a");
    const made = codes([store.create("a")]);
    await writing.reached;
    const used = use(store);
    await settled();
    writing.go(new Error("the disk is broken"));
    expect(await made).toEqual(["store_unavailable"]);
    await expect(used).resolves.toBeUndefined();
  });
});

describe("a session that is changed", () => {
  it("is handed over behind the change that is under way", async () => {
    const store = await openWith(["a"]);
    const first = await store.acquire("a");
    const writing = files.hold("write", "a");
    const committed = first.commit({ state: state(11) });
    await writing.reached;
    const ended = first.end();
    await settled();
    expect(await codes([store.acquire("a")])).toEqual(["session_conflict"]);
    const second = store.acquire("a", { takeOver: true });
    await settled();
    writing.go();
    await Promise.all([committed, ended]);
    expect((await (await second).read()).length).toBe(11);
    await (await second).commit({ state: state(12) });
    await (await second).end();
    expect((await store.get("a")).length).toBe(12);
    expect((await (await open()).get("a")).length).toBe(12);
  });

  it("cannot be changed by who has let go of it", async () => {
    const store = await openWith(["a"]);
    const first = await store.acquire("a");
    const late = [first.end(), first.commit({ state: state(11) })];
    expect(await codes(late)).toEqual(["done", "session_conflict"]);
    expect((await store.get("a")).length).toBe(10);
  });

  it("is read once for all who ask meanwhile, and changed behind that", async () => {
    const store = await openWith(["a"], { save: "park" });
    const reading = files.hold("read", "a");
    const got = [store.get("a"), store.get("a")];
    await reading.reached;
    const acquired = store.acquire("a");
    const changed = acquired.then(({ commit }) => commit({ state: state(11) }));
    await settled();
    reading.go();
    await changed;
    expect(files.log).toEqual(["read a"]);
    for (const { length } of await Promise.all(got)) expect([10, 11]).toContain(length);
    expect((await store.get("a")).length).toBe(11);
    await (await acquired).end();
    await expectExactCounts(store);
  });
});

describe("the bounds of the disk", () => {
  it("hold for writes at the same time", async () => {
    const store = await openWith(["a"]);
    const maxStoredBytes = Math.floor(2.5 * files.bytes);
    const bounded = await open({ maxStoredBytes });
    const writing = files.hold("write", "b");
    const b = bounded.create("b", state(10));
    await writing.reached;
    const outcomes = codes([b, bounded.create("c", state(10))]);
    await settled();
    writing.go();
    expect(await outcomes).toEqual(["done", "overloaded"]);
    expect(files.bytes).toBeLessThanOrEqual(maxStoredBytes);
    await expectExactCounts(bounded);
    await store.close();
  });

  it("give back what was kept for a write that failed", async () => {
    await openWith(["a"]);
    const store = await open({ maxStoredBytes: Math.floor(2.5 * files.bytes) });
    files.hold("write", "b").go(new Error("the disk is broken"));
    expect(await codes([store.create("b", state(10))])).toEqual(["store_unavailable"]);
    await store.create("c", state(10));
    await expectExactCounts(store);
  });
});
