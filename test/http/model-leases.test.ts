import { describe, expect, it } from "vitest";
import { summarizeBundle } from "../../src/bundle/bundle.js";
import { MblmError } from "../../src/errors.js";
import type { ModelLease } from "../../src/http/models/model-registry.js";
import { bundleDir } from "../test-bundles.js";
import { FakeModels, settled } from "./fake-models.js";

const [A, B, C] = ["mamba2", "mamba2-transformer", "transformer-transformer"] as const;

/** Three models, the first of which is loaded, and memory for any one of them. */
async function oneAtATime(): Promise<FakeModels> {
  const summaries = await Promise.all([A, B, C].map((name) => summarizeBundle(bundleDir(name))));
  const largest = Math.max(...summaries.map((summary) => summary.memoryBytes(2)));
  const prefixCacheBytes = largest; // of each: two have no room, whatever their sizes
  const models = await FakeModels.open([A, B, C], { modelBytes: largest + prefixCacheBytes, prefixCacheBytes });
  const loaded = models.registry.load();
  await models.finish(A);
  await loaded;
  return models;
}

/** What a request hears: that its engine is ready, or the code of an error. */
const heard = (uses: readonly Promise<ModelLease>[]): Promise<string[]> =>
  Promise.all(
    uses.map((use) =>
      use.then(
        ({ model }) => model.engine.state,
        ({ code }) => code,
      ),
    ),
  );

describe("a model that is loaded for requests", () => {
  it("is theirs, whatever else waits to be loaded", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const uses = [registry.use(B), registry.use(C), registry.use(B)];
    const outcomes = heard(uses);
    await models.finish(B);
    // There is memory for one, and that one is in use.
    expect(await outcomes).toEqual(["ready", "overloaded", "ready"]);
    (await uses[0]!).release();
    expect(await heard([registry.use(C)])).toEqual(["overloaded"]);
    (await uses[2]!).release();
    const next = registry.use(C);
    await models.finish(C);
    expect(await heard([uses[0]!, next])).toEqual(["closed", "ready"]);
  });

  it("is loaded again when that failed, by whoever asks next", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const outcomes = heard([registry.use(B), registry.use(B)]);
    await models.finish(B, Object.assign(new Error("broken"), { code: "engine_failed" }));
    expect(await outcomes).toEqual(["engine_failed", "engine_failed"]);
    const next = registry.use(B);
    await models.finish(B);
    expect(await heard([next])).toEqual(["ready"]);
  });

  it("is waited for no longer than a request has time; the others have it", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const [early, late] = [new AbortController(), new AbortController()];
    const outcomes = heard([registry.use(B, early.signal), registry.use(B, late.signal), registry.use(B)]);
    await settled();
    early.abort(new MblmError("deadline_exceeded", "The time is over."));
    await settled();
    await models.finish(B);
    late.abort(); // it has what it waited for
    expect(await outcomes).toEqual(["deadline_exceeded", "ready", "ready"]);
    expect(await heard([registry.use(C, early.signal)])).toEqual(["deadline_exceeded"]);
  });

  it("is loaded for one that asks when all who waited have gone", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const gone = new AbortController();
    const outcomes = heard([registry.use(B, gone.signal)]);
    await settled();
    gone.abort();
    const next = registry.use(B);
    await models.finish(B);
    expect(await outcomes).toEqual(["aborted"]);
    expect(await heard([next])).toEqual(["ready"]);
  });

  it("is closed when the server was closed meanwhile, and those that wait hear of it", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const outcomes = heard([registry.use(B), registry.use(C)]);
    await settled();
    await registry.close();
    const late = await models.finish(B);
    expect(late.state).toBe("closed");
    expect(await outcomes).toEqual(["shutting_down", "shutting_down"]);
    expect(registry.loaded()).toEqual([]);
  });
});

describe("a model that is replaced", () => {
  it("serves what came before to its end, and what comes later not at all", async () => {
    const models = await FakeModels.open([A]);
    const { registry } = models;
    const loaded = registry.load();
    const old = await models.finish(A);
    await loaded;
    const before = await registry.use(A);
    const replaced = registry.reload(A);
    const meanwhile = registry.use(A);
    await models.finish(A);
    await replaced;
    const after = await registry.use(A);
    expect((await meanwhile).model).toBe(before.model);
    expect(after.model).not.toBe(before.model);
    before.release();
    before.release(); // counts once
    await settled();
    expect(old.state).toBe("ready");
    (await meanwhile).release();
    await settled();
    expect(old.state).toBe("closed");
    expect(after.model.engine.state).toBe("ready");
  });

  it("serves those that wait for it, and is theirs, too", async () => {
    const models = await oneAtATime();
    const { registry } = models;
    const replaced = registry.reload(B);
    const uses = [registry.use(B), registry.use(C)];
    const outcomes = heard(uses);
    await models.finish(B);
    await replaced;
    expect(await outcomes).toEqual(["ready", "overloaded"]);
  });

  it("stays as it was when the new one cannot be loaded", async () => {
    const models = await FakeModels.open([A]);
    const { registry } = models;
    const loaded = registry.load();
    const old = await models.finish(A);
    await loaded;
    const replaced = registry.reload(A);
    const refused = expect(replaced).rejects.toThrow("broken");
    await models.finish(A, new Error("broken"));
    await refused;
    expect((await registry.use(A)).model.engine).toBe(old);
    expect(old.state).toBe("ready");
  });
});

it("a model that is unloaded on purpose refuses those that wait behind that", async () => {
  const models = await oneAtATime();
  const { registry } = models;
  const first = registry.use(B);
  const unloaded = registry.unload(C);
  const outcomes = heard([registry.use(C)]);
  await models.finish(B);
  await unloaded;
  expect(await outcomes).toEqual(["model_not_found"]);
  expect(await heard([first])).toEqual(["ready"]);
});
