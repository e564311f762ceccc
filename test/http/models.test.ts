import { cpSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import type { Config } from "../../src/config/schema.js";
import { MblmError } from "../../src/errors.js";
import { startInlineEngine } from "../../src/worker/inline-engine.js";
import { scratchFolder } from "../scratch-folder.js";
import { fillWithNaN } from "../sign-bundle.js";
import { bundleDir } from "../test-bundles.js";
import { complete, json, post } from "./api.js";
import { postCompletion, startApp, type TestApp } from "./test-app.js";

const FIRST = "mamba2-transformer";
const SECOND = "transformer-transformer";
const BODY = { prompt: "one and the same", max_tokens: 24, temperature: 0, return_token_ids: true };

const both = `${bundleDir(FIRST)}, ${bundleDir(SECOND)}`;
const start = (model: string, settings: Partial<Config> = {}, engine = startInlineEngine): Promise<TestApp> =>
  startApp(FIRST, { model, allowModelChanges: true, ...settings }, engine);
const idsOf = async (app: TestApp, model?: string): Promise<number[]> =>
  (await complete(app, { ...BODY, ...(model && { model }) })).choices[0]!.token_ids!;
const states = async (app: TestApp): Promise<Record<string, string>> => {
  const { data } = await json<{ data: { id: string; state: string }[] }>(await fetch(`${app.url}/v1/models`));
  return Object.fromEntries(data.map(({ id, state }) => [id, state]));
};
const change = (app: TestApp, name: string, what: "load" | "unload"): Promise<Response> =>
  fetch(`${app.url}/v2/repository/models/${name}/${what}`, { method: "POST" });
/** Bytes that two small models need, so that only one of them fits. */
const ROOM_FOR_ONE = 40_000_000;
const ONE_AT_A_TIME = { modelBytes: ROOM_FOR_ONE, prefixCacheBytes: 30_000_000, slots: 2 };

describe("several models", () => {
  let app: TestApp;
  const alone: Record<string, number[]> = {};
  beforeAll(async () => {
    app = await start(both);
    for (const name of [FIRST, SECOND]) {
      const single = await start(bundleDir(name));
      alone[name] = await idsOf(single);
      await single.stop();
    }
  });
  afterAll(() => app.stop());

  it("each answer as if alone; the first is the default", async () => {
    expect(await idsOf(app)).toEqual(alone[FIRST]);
    expect(await idsOf(app, FIRST)).toEqual(alone[FIRST]);
    expect(await idsOf(app, SECOND)).toEqual(alone[SECOND]);
    expect(alone[FIRST]).not.toEqual(alone[SECOND]);
    expect(await states(app)).toEqual({ [FIRST]: "ready", [SECOND]: "ready" });
    const scored = await json<{ model: string }>(
      await fetch(`${app.url}/v1/score?model=${SECOND}`, { method: "POST", body: "abc" }),
    );
    expect(scored.model).toBe(SECOND);
  });

  it("are refused when they are full, the others not", async () => {
    const narrow = await start(both, { slots: 1, maxWaiting: 0 });
    const running = await postCompletion(narrow, { prompt: "a", max_tokens: 1e6, stream: true });
    for (const model of [undefined, FIRST]) expect((await postCompletion(narrow, { ...BODY, model })).status).toBe(429);
    expect(await idsOf(narrow, SECOND)).toEqual(alone[SECOND]);
    await running.body!.cancel();
    await narrow.stop();
  });

  it("that there are not are refused by name", async () => {
    const refused = await postCompletion(app, { ...BODY, model: "other" });
    expect(refused.status).toBe(404);
    expect((await json(refused)).error).toMatchObject({
      param: "model",
      message: `model: other is not served here; ${FIRST}, ${SECOND} is`,
    });
    expect((await change(app, "other", "load")).status).toBe(404);
  });

  it("a session goes on with its own model, and is refused by others", async () => {
    await post(app, "/v1/sessions", { id: "s" });
    await fetch(`${app.url}/v1/sessions/s/append?model=${SECOND}`, { method: "POST", body: "one and " });
    const body = { ...BODY, prompt: "the same", session_id: "s" };
    const refused = await postCompletion(app, { ...body, model: FIRST });
    expect((await json(refused)).error).toMatchObject({
      param: "session_id",
      message: `session_id: the session is of the model ${SECOND}, not of ${FIRST}`,
    });
    expect((await complete(app, body)).choices[0]!.token_ids).toEqual(alone[SECOND]);
    const snapshot = await (await fetch(`${app.url}/v1/sessions/s/snapshot`)).arrayBuffer();
    const upload = { method: "PUT", body: snapshot };
    expect((await fetch(`${app.url}/v1/sessions/copy/snapshot`, upload)).status).toBe(201);
  });

  it("streams of one connection may have different ones", async () => {
    const socket = new WebSocket(`${app.url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1");
    const said = new Map<number, number[]>();
    const finished = new Promise<void>((resolve, reject) => {
      let numLeft = 2;
      socket.on("message", (data: Buffer, isBinary) => {
        if (isBinary) said.set(data.readUInt32LE(), [...(said.get(data.readUInt32LE()) ?? []), ...data.subarray(4)]);
        else if (data.toString().includes('"error"')) reject(new Error(data.toString()));
        else if (data.toString().includes('"finished"') && --numLeft === 0) resolve();
      });
    });
    await new Promise((resolve) => socket.once("open", resolve));
    for (const [stream, model] of [
      [1, FIRST],
      [2, SECOND],
    ]) {
      const push = Buffer.concat([Buffer.alloc(4), Buffer.from(BODY.prompt)]);
      push.writeUInt32LE(stream as number);
      socket.send(JSON.stringify({ type: "open", stream, model }));
      socket.send(push);
      socket.send(JSON.stringify({ type: "generate", stream, max_tokens: 24, temperature: 0 }));
    }
    await finished;
    socket.close();
    expect([said.get(1), said.get(2)]).toEqual([alone[FIRST], alone[SECOND]]);
  });
});

describe("a memory budget", () => {
  it("loads what is asked for in place of what was not used for longest, but nothing that is in use", async () => {
    const app = await start(both, ONE_AT_A_TIME);
    try {
      expect(await states(app)).toEqual({ [FIRST]: "ready", [SECOND]: "unloaded" });
      const before = await idsOf(app);
      const second = await Promise.all([idsOf(app, SECOND), idsOf(app, SECOND)]); // both wait for one load
      expect(second[0]).toEqual(second[1]);
      expect(await states(app)).toEqual({ [FIRST]: "unloaded", [SECOND]: "ready" });
      const controller = new AbortController();
      const endless = { prompt: "a", model: FIRST, max_tokens: 1e6, stream: true };
      const open = await postCompletion(app, endless, { signal: controller.signal });
      expect(open.status).toBe(200);
      const refused = await postCompletion(app, { ...BODY, model: SECOND });
      expect(refused.status).toBe(429);
      expect((await json(refused)).error.message).toContain("no memory");
      controller.abort();
      await open.text().catch(() => {});
      await expect.poll(async () => (await postCompletion(app, { ...BODY, model: SECOND })).status).toBe(200);
      expect(await idsOf(app)).toEqual(before);
    } finally {
      await app.stop();
    }
  });

  it("that is too small for a model is refused at the start", async () => {
    await expect(start(both, { modelBytes: 1_000_000 })).rejects.toThrow(/model_bytes: 1000000 is too little/);
  });

  it("two bundles of one name are refused at the start", async () => {
    await expect(start(`${bundleDir(FIRST)},${bundleDir(FIRST)}`)).rejects.toThrow(/both named/);
  });
});

describe("a model that is replaced", () => {
  const folder = scratchFolder("models");
  const current = join(folder, "current");
  /** Puts a bundle into the folder, as the model that is served, in one step. */
  const install = (bundle: string): void => {
    const next = join(folder, "next");
    cpSync(bundleDir(bundle), next, { recursive: true });
    const manifest = JSON.parse(readFileSync(join(next, "manifest.json"), "utf8"));
    writeFileSync(join(next, "manifest.json"), JSON.stringify({ ...manifest, name: "model" }));
    rmSync(current, { recursive: true, force: true });
    renameSync(next, current);
  };
  let app: TestApp;
  beforeAll(async () => {
    install(FIRST);
    app = await start(current);
  });
  afterAll(() => app.stop());

  it("ends what is open with the old bundle, begins what comes with the new one, and drops nothing", async () => {
    const long = { ...BODY, max_tokens: 4000 };
    const [expected] = (await complete(app, long)).choices;
    const old = await idsOf(app);
    await post(app, "/v1/sessions", { id: "s" });
    await complete(app, { ...BODY, session_id: "s" });
    const streams = Array.from({ length: 3 }, () => complete(app, long));
    await expect.poll(async () => (await app.engine.stats()).numRunning).toBe(3);
    install(SECOND);
    const loading = change(app, "model", "load");
    const between = await Promise.all(Array.from({ length: 5 }, () => idsOf(app)));
    expect((await loading).status).toBe(200);
    const now = await idsOf(app);
    expect(now).not.toEqual(old);
    for (const ids of between) expect([old, now]).toContainEqual(ids);
    for (const { choices } of await Promise.all(streams)) expect(choices[0]).toEqual(expected);
    const refused = await postCompletion(app, { ...BODY, session_id: "s" });
    expect((await json(refused)).error.message).toContain("another bundle of model");
  });

  it("stays as it was when the new bundle is damaged, another model's, or of a model that gives no numbers", async () => {
    const before = await idsOf(app);
    const manifest = readFileSync(join(current, "manifest.json"), "utf8");
    writeFileSync(join(current, "manifest.json"), manifest.replace('"name":"model"', '"name":"another"'));
    const other = await change(app, "model", "load");
    expect((await json(other)).error).toMatchObject({ code: "bundle_invalid" });
    writeFileSync(join(current, "manifest.json"), manifest);
    rmSync(join(current, "constants.bin"));
    const missing = await change(app, "model", "load");
    expect(missing.status).toBe(500);
    expect((await json(missing)).error.message).toContain("constants.bin is missing");
    install(SECOND);
    fillWithNaN(current, "weights.bin");
    const noNumbers = await change(app, "model", "load");
    expect(noNumbers.status).toBe(500);
    expect((await json(noNumbers)).error).toMatchObject({
      code: "bundle_invalid",
      type: "server_error",
      message: "the self-test of model failed: the model's logits are not finite",
    });
    expect(await idsOf(app)).toEqual(before);
    expect(await states(app)).toEqual({ model: "ready" });
    install(SECOND);
  });

  it("can be unloaded, and is back when it is loaded again", async () => {
    expect((await change(app, "model", "unload")).status).toBe(200);
    const refused = await postCompletion(app, BODY);
    expect(refused.status).toBe(404);
    expect((await json(refused)).error.message).toBe("model: model is unloaded");
    expect(await json(await fetch(`${app.url}/v2/repository/index`, { method: "POST" }))).toMatchObject([
      { name: "model", state: "UNAVAILABLE", reason: "stopped" },
    ]);
    expect((await fetch(`${app.url}/v2/models/model/ready`)).status).toBe(503);
    expect((await change(app, "model", "load")).status).toBe(200);
    expect((await postCompletion(app, BODY)).status).toBe(200);
  });

  it("is changed by nobody where that is not allowed", async () => {
    const closed = await start(bundleDir(FIRST), { allowModelChanges: false });
    expect((await change(closed, FIRST, "load")).status).toBe(403);
    expect((await change(closed, FIRST, "unload")).status).toBe(403);
    expect((await postCompletion(closed, BODY)).status).toBe(200);
    await closed.stop();
  });

  it("that loads but does not run is not served", async () => {
    const broken: typeof startInlineEngine = async (options) => {
      const engine = await startInlineEngine(options);
      const submit = (): never => {
        throw new MblmError("engine_failed", "it does not run");
      };
      return Object.assign(Object.create(engine), { submit, close: () => engine.close() });
    };
    await expect(start(bundleDir(FIRST), {}, broken)).rejects.toThrow("it does not run");
  });
});
