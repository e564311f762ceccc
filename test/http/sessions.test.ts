import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { LocalSessionStore } from "../../src/session/local-session-store.js";
import { decodeState, encodeState } from "../../src/session/state-codec.js";
import { makeRandom } from "../engine/requests.js";
import { scratchFolder } from "../scratch-folder.js";
import { hasValkey, ValkeyServer } from "../session/valkey-server.js";
import { complete, json, post, stream } from "./api.js";
import { startApp, type TestApp, untilIdle, useApp } from "./test-app.js";

interface Session {
  id: string;
  object: string;
  bytes: number | null;
}

const ARCHITECTURES = [
  "mamba2-transformer",
  "mamba2",
  "transformer-transformer",
  "mamba2-transformer-transformer",
  "gru-mix",
];
const folder = scratchFolder("sessions");

const app = useApp("mamba2-transformer");
const elsewhere = useApp("mamba2-transformer");
const otherModel = useApp("mamba2");

const create = async (target: TestApp, id?: string): Promise<string> => {
  const response = await post(target, "/v1/sessions", id === undefined ? {} : { id });
  expect(response.status).toBe(201);
  return (await json<Session>(response)).id;
};
const read = async (target: TestApp, id: string): Promise<Session> =>
  json(await fetch(`${target.url}/v1/sessions/${id}`));
const append = (target: TestApp, id: string, bytes: Uint8Array<ArrayBuffer> | string): Promise<Response> =>
  fetch(`${target.url}/v1/sessions/${id}/append`, { method: "POST", body: bytes });

async function generate(target: TestApp, body: object): Promise<number[]> {
  return (await complete(target, { temperature: 0, return_token_ids: true, ...body })).choices[0]!.token_ids!;
}

describe.each(ARCHITECTURES)("a session of %s", (bundle) => {
  const own = useApp(bundle);
  const restored = useApp(bundle);

  it("equals the whole sequence, at every offset of a patch, through a snapshot on another server", async () => {
    const prompt = [...Buffer.from("In the beginning was the w")];
    const whole = await generate(own(), { prompt, max_tokens: 40 });
    for (let cut = 1; cut < 30; cut += 1 + (cut % 4)) {
      const id = await create(own());
      expect(await generate(own(), { prompt, max_tokens: cut, session_id: id })).toEqual(whole.slice(0, cut));
      const snapshot = await (await fetch(`${own().url}/v1/sessions/${id}/snapshot`)).arrayBuffer();
      const there = `copy-${cut}`;
      const upload = await fetch(`${restored().url}/v1/sessions/${there}/snapshot`, { method: "PUT", body: snapshot });
      expect(upload.status).toBe(201);
      expect(await json<Session>(upload)).toMatchObject({ id: there, bytes: prompt.length + cut });
      for (const [target, session] of [
        [own(), id],
        [restored(), there],
      ] as const) {
        const rest = { prompt: [], max_tokens: 40 - cut, session_id: session };
        expect(await generate(target, rest)).toEqual(whole.slice(cut));
      }
    }
  });
});

describe.each(["mamba2", "mamba2-transformer"])(
  "a session of %s that was ended by an id that is no part of it",
  (bundle) => {
    const own = useApp(bundle);
    const restored = useApp(bundle);

    it("can be gone on with wherever it stands, through a snapshot as well", async () => {
      for (let length = 0; length < 9; length++) {
        const id = await create(own());
        const prompt = [...Buffer.from("In the beginning").subarray(0, length)];
        const end = { max_tokens: 5, stop_token_ids: [65], logit_bias: { "65": 100 } };
        expect(await generate(own(), { prompt, ...end, session_id: id })).toEqual([]);
        expect((await read(own(), id)).bytes).toBe(length);
        const snapshot = await (await fetch(`${own().url}/v1/sessions/${id}/snapshot`)).arrayBuffer();
        const upload = { method: "PUT", body: snapshot };
        expect((await fetch(`${restored().url}/v1/sessions/${id}/snapshot`, upload)).status).toBe(201);
        const whole = await generate(own(), { prompt, max_tokens: 9 });
        for (const target of [own(), restored()]) {
          expect(await generate(target, { prompt: [], max_tokens: 4, session_id: id })).toEqual(whole.slice(0, 4));
          expect(await generate(target, { prompt: [], max_tokens: 5, session_id: id })).toEqual(whole.slice(4));
        }
      }
    });
  },
);

/** With no room in memory, every operation parks its session and the next one resumes it. */
describe("1 000 random pushes, generations, forks and deletions equal the whole sequences", () => {
  const equalsOracle = async (app: () => TestApp): Promise<void> => {
    const random = makeRandom(77);
    const sessions = new Map<string, number[]>([[await create(app()), []]]);
    const greedy = async (ids: number[], count: number): Promise<number[]> =>
      generate(elsewhere(), { prompt: ids, max_tokens: count });
    for (let i = 0; i < 1000; i++) {
      const [id, ids] = [...sessions][random(sessions.size)]!;
      const bytes = Array.from({ length: random(12) }, () => random(256));
      const action = random(10);
      if (action < 4) {
        expect((await append(app(), id, Uint8Array.from(bytes))).status).toBe(200);
        ids.push(...bytes);
      } else if (action < 7) {
        const count = random(8);
        const output = await generate(app(), { prompt: bytes, max_tokens: count, session_id: id });
        ids.push(...bytes);
        expect(output).toEqual(await greedy(ids, count));
        ids.push(...output);
      } else if (action < 9 && sessions.size < 8) {
        const fork = await json<Session>(await post(app(), `/v1/sessions/${id}/fork`, {}));
        sessions.set(fork.id, [...ids]);
      } else if (sessions.size > 1) {
        await fetch(`${app().url}/v1/sessions/${id}`, { method: "DELETE" });
        sessions.delete(id);
        continue;
      }
      expect((await read(app(), id)).bytes).toBe(ids.length);
    }
    const { data } = await json<{ data: Session[] }>(await fetch(`${app().url}/v1/sessions`));
    expect(data.map(({ id }) => id).sort()).toEqual([...sessions.keys()].sort());
  };

  describe("in memory", () => {
    it("each", { timeout: 120_000 }, () => equalsOracle(app));
  });
  describe("parked on disk and resumed", () => {
    const parked = scratchFolder("parked");
    const onDisk = useApp("mamba2-transformer", { sessionDir: parked, sessionBytes: 0 });
    it("each", { timeout: 120_000 }, () => equalsOracle(onDisk));
  });
  describe.runIf(hasValkey)("parked in Valkey and resumed", () => {
    let valkey: ValkeyServer;
    let inValkey: TestApp;
    beforeAll(async () => {
      valkey = await ValkeyServer.start();
      inValkey = await startApp("mamba2-transformer", { sessionUrl: valkey.url, sessionBytes: 0 });
    });
    afterAll(async () => {
      await inValkey.stop();
      await valkey.stop();
    });
    it("each", { timeout: 120_000 }, () => equalsOracle(() => inValkey));
  });
});

describe("sessions", () => {
  it("streams and goes on; stops and repetition penalties see what came before", async () => {
    const [id, twin] = [await create(app()), await create(app())];
    const body = { prompt: "It was", max_tokens: 30, seed: 1, return_token_ids: true };
    const whole = await complete(app(), { ...body, session_id: twin });
    const pieces = (await stream(app(), { ...body, session_id: id })).flatMap(({ choices }) => choices);
    expect(pieces.flatMap(({ token_ids }) => token_ids!)).toEqual(whole.choices[0]!.token_ids);
    expect((await read(app(), id)).bytes).toBe(36);

    const penalised = { max_tokens: 20, temperature: 0, repetition_penalty: 3, return_token_ids: true };
    const history = [...Buffer.from("It was"), ...whole.choices[0]!.token_ids!];
    const expected = await generate(app(), { ...penalised, prompt: history });
    expect(await generate(app(), { ...penalised, prompt: [], session_id: id })).toEqual(expected);
  });

  it("a request that is cut off leaves the session as it was, and free", async () => {
    const id = await create(app());
    await append(app(), id, "some history");
    const controller = new AbortController();
    const endless = post(
      app(),
      "/v1/completions",
      { prompt: "and on", max_tokens: 1_000_000, session_id: id, stream: true },
      { signal: controller.signal },
    );
    await endless;
    const busy = await post(app(), "/v1/completions", { prompt: "me too", session_id: id });
    expect(busy.status).toBe(409);
    expect(await json(busy)).toMatchObject({ error: { code: "session_conflict" } });
    expect((await fetch(`${app().url}/v1/sessions/${id}`, { method: "DELETE" })).status).toBe(409);
    controller.abort();
    await endless.then((response) => response.text()).catch(() => {});
    await untilIdle(app());
    await expect
      .poll(async () => (await post(app(), "/v1/completions", { max_tokens: 0, session_id: id })).status)
      .toBe(200);
    expect((await read(app(), id)).bytes).toBe(12);
  });

  it.each([
    ["no such session", "GET", "/v1/sessions/none", undefined, 404],
    ["no session to go on with", "POST", "/v1/completions", { session_id: "none" }, 404],
    ["no session to delete", "DELETE", "/v1/sessions/none", undefined, 404],
    ["no session to fork", "POST", "/v1/sessions/none/fork", {}, 404],
    ["a wrong id", "POST", "/v1/sessions", { id: "../x" }, 400],
    ["a wrong id", "POST", "/v1/sessions", { id: "." }, 400],
    ["several choices", "POST", "/v1/completions", { session_id: "a", n: 2 }, 400],
    ["several prompts", "POST", "/v1/completions", { session_id: "a", prompt: ["a", "b"] }, 400],
  ])("refuses %s (%s %s)", async (_, method, path, body, status) => {
    const response = await fetch(`${app().url}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    expect(response.status).toBe(status);
  });

  it("refuses an id that is taken", async () => {
    await create(app(), "taken");
    expect((await post(app(), "/v1/sessions", { id: "taken" })).status).toBe(409);
    expect((await post(app(), "/v1/sessions/taken/fork", { id: "taken" })).status).toBe(409);
  });

  it("an empty session has an empty snapshot, and an empty snapshot is an empty session", async () => {
    const id = await create(app());
    const content = await (await fetch(`${app().url}/v1/sessions/${id}/snapshot`)).arrayBuffer();
    expect(content.byteLength).toBe(0);
    expect((await fetch(`${app().url}/v1/sessions/empty/snapshot`, { method: "PUT", body: content })).status).toBe(201);
    expect((await read(app(), "empty")).bytes).toBe(0);
  });

  it("refuses snapshots that are damaged, cut, of another model or none at all", async () => {
    const id = await create(app());
    await append(app(), id, "x".repeat(50));
    const good = Buffer.from(await (await fetch(`${app().url}/v1/sessions/${id}/snapshot`)).arrayBuffer());
    const upload = (target: TestApp, content: Buffer): Promise<Response> =>
      fetch(`${target.url}/v1/sessions/never/snapshot`, { method: "PUT", body: new Uint8Array(content) });
    const flipped = Buffer.from(good);
    flipped[good.length - 40]! ^= 1;
    const newer = Buffer.from(good.toString("latin1").replace('"format_version":1', '"format_version":9'), "latin1");
    const state = decodeState(good);
    const bundle = encodeState({ ...state, model: { ...state.model, bundleDigest: "other" } });
    const { snapshot } = state;
    const [[first, ...others]] = snapshot.stages as [Float32Array[]];
    const shape = encodeState({ ...state, snapshot: { ...snapshot, stages: [[first!.subarray(1), ...others]] } });
    const open = encodeState({ ...state, tail: new Uint16Array() });
    const foreign = encodeState({ ...state, tail: Uint16Array.of(65, 256) });
    for (const [target, content, problem] of [
      [app(), flipped, "SHA-256"],
      [app(), good.subarray(0, -7), "instead of"],
      [app(), good.subarray(0, 60), "header"],
      [app(), Buffer.from("hello"), "not a state"],
      [app(), newer, "format_version 9"],
      [app(), bundle, "another bundle"],
      [app(), shape, "mamba2-transformer cannot go on from it: The state to go on from does not fit this model."],
      [app(), open, "does not fit this model"],
      [app(), foreign, "id 256 is not one of the model's 0 to 255"],
      [otherModel(), good, "of the model mamba2-transformer"],
    ] as const) {
      const response = await upload(target, content);
      expect(response.status).toBe(400);
      expect((await json(response)).error).toMatchObject({
        param: "snapshot",
        message: expect.stringContaining(problem),
      });
    }
    expect((await fetch(`${app().url}/v1/sessions/never`)).status).toBe(404);
  });
});

describe("limits", () => {
  const few = useApp("mamba2-transformer", { maxSessions: 2 });
  const small = useApp("mamba2-transformer", { sessionBytes: 100_000 });
  const brief = useApp("mamba2-transformer", { sessionTtlSeconds: 1 });

  it("of number, memory and age hold, with clear answers", async () => {
    await create(few());
    await create(few());
    expect((await post(few(), "/v1/sessions", {})).status).toBe(429);

    const id = await create(small());
    const statuses: number[] = [];
    for (let i = 0; i < 50 && statuses.at(-1) !== 429; i++) {
      const fork = await create(small());
      statuses.push((await append(small(), fork, "x".repeat(40))).status);
    }
    expect(statuses[0]).toBe(200);
    expect(statuses.at(-1)).toBe(429);
    expect((await read(small(), id)).bytes).toBe(0);

    const old = await create(brief());
    expect((await fetch(`${brief().url}/v1/sessions/${old}`)).status).toBe(200);
    await expect
      .poll(async () => (await fetch(`${brief().url}/v1/sessions`)).json(), { timeout: 5000, interval: 300 })
      .toMatchObject({ data: [] });
    expect((await fetch(`${brief().url}/v1/sessions/${old}`)).status).toBe(404);
  });
});

it("an append answers with what it has made, even if the session is deleted in the same breath", async () => {
  const id = await create(app());
  const acquire = LocalSessionStore.prototype.acquire;
  const spy = vi.spyOn(LocalSessionStore.prototype, "acquire");
  spy.mockImplementationOnce(async function (this: LocalSessionStore, ...args) {
    const acquired = await acquire.apply(this, args);
    const end = (): Promise<void> => acquired.end().then(() => this.delete(id));
    return { ...acquired, end };
  });
  const response = await append(app(), id, "abc");
  spy.mockRestore();
  expect(response.status).toBe(200);
  expect(await json<Session>(response)).toMatchObject({ id, bytes: 3 });
  expect((await fetch(`${app().url}/v1/sessions/${id}`)).status).toBe(404);
});

it("a wall clock that jumps makes no session old", async () => {
  const id = await create(app());
  const now = Date.now();
  const clock = vi.spyOn(Date, "now");
  try {
    for (const days of [400, -400]) {
      clock.mockReturnValue(now + days * 86_400_000);
      expect((await append(app(), id, "x")).status).toBe(200);
    }
  } finally {
    clock.mockRestore();
  }
  expect((await read(app(), id)).bytes).toBe(2);
});

describe("a server with a session folder", () => {
  // The second has room for no state in memory: every use reads the disk.
  const first = useApp("mamba2-transformer", { sessionDir: folder });
  it("keeps sessions for the next server, and nothing half-written", async () => {
    const id = await create(first(), "kept");
    const prompt = [...Buffer.from("Once upon a time")];
    const whole = await generate(first(), { prompt, max_tokens: 30 });
    expect(await generate(first(), { prompt, max_tokens: 11, session_id: id })).toEqual(whole.slice(0, 11));
    await create(first(), "gone");
    await fetch(`${first().url}/v1/sessions/gone`, { method: "DELETE" });
    writeFileSync(join(folder, "half.session.tmp"), "half a sess");
    expect(readdirSync(folder).sort()).toEqual(["half.session.tmp", "kept.session"]);
    rest = whole.slice(11);
  });

  let rest: number[] = [];
  describe("started again", () => {
    const second = useApp("mamba2-transformer", { sessionDir: folder, sessionBytes: 0 });
    it("goes on as if nothing had happened", async () => {
      const { data } = await json<{ data: Session[] }>(await fetch(`${second().url}/v1/sessions`));
      expect(data).toMatchObject([{ id: "kept", bytes: null }]);
      expect(readdirSync(folder)).toEqual(["kept.session"]);
      expect(await generate(second(), { prompt: [], max_tokens: 10, session_id: "kept" })).toEqual(rest.slice(0, 10));
      expect(await generate(second(), { prompt: [], max_tokens: 9, session_id: "kept" })).toEqual(rest.slice(10));
      expect((await read(second(), "kept")).bytes).toBe(46);
    });

    describe("and again, with a file that is damaged", () => {
      const third = useApp("mamba2-transformer", { sessionDir: folder });
      it("says so when it is used, and can delete it", async () => {
        writeFileSync(join(folder, "kept.session"), "not a session");
        const response = await post(third(), "/v1/completions", { session_id: "kept" });
        expect(response.status).toBe(400);
        expect(await json(response)).toMatchObject({ error: { param: "session_id" } });
        expect((await fetch(`${third().url}/v1/sessions/kept`, { method: "DELETE" })).status).toBe(200);
        expect(readdirSync(folder)).toEqual([]);
      });
    });
  });
});
