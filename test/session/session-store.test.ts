import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import type { SequenceState } from "../../src/core/state-snapshot.js";
import { type LocalSessionOptions, LocalSessionStore } from "../../src/session/local-session-store.js";
import { SessionFiles } from "../../src/session/session-files.js";
import { decodeState, encodeState } from "../../src/session/state-codec.js";

const MODEL = { id: "m", bundleDigest: "d" };
const LIMITS = { maxSessions: 100, maxBytes: 1e9, ttlSeconds: 100 };

/** A state of a sequence of `length` ids, about `8 × size` bytes. */
function state(length: number, size = 100): SequenceState {
  const snapshot = {
    length: length - 1,
    crossedAt: length - 1,
    recent: Uint16Array.of(1, 65535),
    contexts: [Float32Array.of(1.5, -0, Number.NaN)],
    stages: [[new Float32Array(size).fill(length), new Float32Array(size)], [Float32Array.of(Infinity)]],
  };
  return { snapshot, tail: Uint16Array.of(length), seen: Uint8Array.of(0, 1, 1) };
}

let folder: string;
let seconds: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "store-"));
  seconds = 1000;
  return () => rmSync(folder, { recursive: true, force: true });
});
const open = (options: Partial<LocalSessionOptions> = {}, stored = true): Promise<LocalSessionStore> =>
  LocalSessionStore.open(MODEL, {
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

describe("a state as bytes", () => {
  it("comes back bit for bit, wherever it lies in memory", () => {
    const original = state(300);
    const bytes = encodeState(original, MODEL);
    for (const shift of [0, 1, 2, 3]) {
      const moved = Buffer.concat([Buffer.alloc(shift), bytes]).subarray(shift);
      expect(decodeState(moved, MODEL)).toEqual(original);
    }
  });

  it("is refused whichever of its bytes is changed", () => {
    const bytes = encodeState(state(3, 2), MODEL);
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i]! ^= 0x10;
      expect(() => decodeState(changed, MODEL), `byte ${i}`).toThrow("snapshot: ");
    }
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeState(bytes.subarray(0, length), MODEL)).toThrow("snapshot: ");
    }
  });
});

describe("the session store", () => {
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
    expect(readdirSync(folder)).toEqual(["young.session"]);
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
});
