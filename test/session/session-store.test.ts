import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { type LocalSessionOptions, LocalSessionStore } from "../../src/session/local-session-store.js";
import { SessionFiles } from "../../src/session/session-files.js";
import { scratchFolder } from "../scratch-folder.js";
import { state } from "./states.js";

const LIMITS = { maxSessions: 100, maxBytes: 1e9, ttlSeconds: 100 };

let folder: string;
let seconds: number;
beforeEach(() => {
  folder = scratchFolder("store");
  seconds = 1000;
});
const open = (options: Partial<LocalSessionOptions> = {}, stored = true): Promise<LocalSessionStore> =>
  LocalSessionStore.open({
    ...LIMITS,
    save: "change",
    maxStoredBytes: 1e9,
    files: stored ? new SessionFiles(folder) : undefined,
    now: () => seconds,
    report: (error) => {
      throw error;
    },
    ...options,
  });

describe("the sessions of one server", () => {
  it("lets states leave the memory, the one used longest ago first, and reads them again", async () => {
    const store = await open({ maxBytes: 3000 });
    for (const id of ["a", "b", "c", "d"]) await store.create(id, state(10));
    expect((await store.stats()).memoryBytes).toBeLessThanOrEqual(3000);
    for (const id of ["a", "b", "c", "d"]) expect((await store.get(id)).state).toEqual(state(10));
    expect((await store.stats()).memoryBytes).toBeLessThanOrEqual(3000);
    expect((await store.stats()).numSessions).toBe(4);
  });

  it("refuses what does not fit into the memory where there is no disk", async () => {
    const store = await open({ maxBytes: 1000 }, false);
    await store.create("a", state(10));
    await expect(store.create("b", state(10))).rejects.toMatchObject({ code: "overloaded" });
    expect((await store.list()).map(({ id }) => id)).toEqual(["a"]);
    await store.delete("a");
    await store.create("b", state(10));
  });

  it("forgets what was not used for long, on the disk as well", async () => {
    const store = await open();
    await store.create("old", state(5));
    seconds += 60;
    await store.create("young", state(5));
    seconds += 60;
    expect((await store.list()).map(({ id }) => id)).toEqual(["young"]);
    await expect.poll(() => readdirSync(folder)).toEqual(["young.session"]);
    await expect(store.get("old")).rejects.toMatchObject({ code: "session_not_found" });
  });

  it("is changed by one request at a time, and never forgotten meanwhile", async () => {
    const store = await open();
    await store.create("a");
    const acquired = await store.acquire("a");
    await expect(store.acquire("a")).rejects.toMatchObject({ code: "session_conflict" });
    await expect(store.delete("a")).rejects.toMatchObject({ code: "session_conflict" });
    seconds += 1000;
    await acquired.commit({ state: state(7) });
    await acquired.end();
    expect((await store.get("a")).length).toBe(7);
  });

  it("keeps the old state when the new one cannot be stored", async () => {
    const store = await open();
    await store.create("a", state(3));
    const acquired = await store.acquire("a");
    rmSync(folder, { recursive: true });
    await expect(acquired.commit({ state: state(9) })).rejects.toThrow("could not be stored");
    await acquired.end();
    expect((await store.get("a")).state).toEqual(state(3));
    await expect(store.create("b")).rejects.toThrow("could not be stored");
    expect((await store.list()).map(({ id }) => id)).toEqual(["a"]);
  });

  it("starts with what is on the disk and clears what was left half-written", async () => {
    const first = await open();
    await first.create("a", state(4));
    await first.create("empty");
    writeFileSync(join(folder, "b.session.tmp"), "half");
    const second = await open();
    expect(readdirSync(folder).sort()).toEqual(["a.session", "empty.session"]);
    expect((await second.get("a")).state).toEqual(state(4));
    expect(await second.get("empty")).toMatchObject({ state: undefined, length: 0 });
  });

  it("refuses a folder that is none", async () => {
    writeFileSync(join(folder, "file"), "");
    await expect(open({ files: new SessionFiles(join(folder, "file")) })).rejects.toThrow();
  });

  it("keeps within its disk", async () => {
    const store = await open({ maxStoredBytes: 3000 });
    await store.create("a", state(3));
    await store.create("b", state(3));
    await expect(store.create("c", state(3))).rejects.toMatchObject({ code: "overloaded" });
    expect((await store.stats()).storedBytes).toBeLessThanOrEqual(3000);
    await store.delete("a");
    await store.create("c", state(3));
    expect(readdirSync(folder).sort()).toEqual(["b.session", "c.session"]);
  });

  it.each([
    ["change", [3, 4, 4, 4]],
    ["park", [3, 3, 4, 4]],
    ["shutdown", [undefined, undefined, undefined, 4]],
  ] as const)("writes when the policy says so: %s", async (save, expected) => {
    const stored = async (): Promise<number | undefined> =>
      (await open()).get("a").then(
        ({ length }) => length,
        () => undefined,
      );
    const seen: (number | undefined)[] = [];
    const store = await open({ save });
    await store.create("a", state(3));
    seen.push(await stored());
    const acquired = await store.acquire("a");
    await acquired.commit({ state: state(4) });
    expect((await store.get("a")).length).toBe(4);
    seen.push(await stored());
    await acquired.end();
    seen.push(await stored());
    await store.close();
    seen.push(await stored());
    expect(seen).toEqual(expected);
  });

  it("writes what it must before it leaves the memory", async () => {
    const store = await open({ save: "shutdown", maxBytes: 2000 });
    for (let i = 0; i < 8; i++) await store.create(`s${i}`, state(10 + i));
    expect((await store.stats()).memoryBytes).toBeLessThanOrEqual(2000);
    for (let i = 0; i < 8; i++) expect((await store.get(`s${i}`)).state).toEqual(state(10 + i));
  });

  it("says when a write that nobody waits for fails, and keeps what it has", async () => {
    const problems: string[] = [];
    const store = await open({ save: "park", report: (error) => problems.push(error.message) });
    await store.create("a", state(3));
    const acquired = await store.acquire("a");
    rmSync(folder, { recursive: true });
    await acquired.commit({ state: state(9) });
    await acquired.end();
    expect(problems).toEqual([expect.stringContaining("could not be stored")]);
    expect((await store.get("a")).length).toBe(9);
  });
});
