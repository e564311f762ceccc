import { expect, it, vi } from "vitest";
import type { GenerationEvent } from "../../src/core/generation-event.js";
import { MblmError } from "../../src/errors.js";
import { state } from "../session/states.js";
import { FakeConnection } from "./fake-connection.js";
import { settled } from "./fake-models.js";

const NAME = "mamba2";
const told = ({ socket }: FakeConnection): string[] => socket.told.map(({ type, stream }) => `${type} ${stream}`);

/** A promise that a test settles. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

it("a push that the engine had carried out before it heard that the client has gone counts as carried out", async () => {
  const fake = await FakeConnection.open(NAME);
  const { connection, engine, sessions } = fake;
  const model = { id: engine.info.id, bundleDigest: engine.info.bundleDigest };
  const fed = { ...state(3), model };
  const { opened, open } = gate();
  const submit = vi.fn(async function* (): AsyncGenerator<GenerationEvent, void, void> {
    yield { type: "started", promptBytes: 3 };
    await opened;
    const usage = { promptBytes: 3, generatedBytes: 0, cachedBytes: 0 };
    const timings = { queueSeconds: 0, prefillSeconds: 0, prefillChunks: 1, decodeSeconds: 0 };
    yield { type: "finished", reason: "length", usage, timings, state: fed } as GenerationEvent;
  });
  engine.submit = submit;
  await sessions.create("s");
  await fake.say({ type: "open", stream: 1, session_id: "s" });
  await fake.push(1, "abc");
  expect(submit).toHaveBeenCalledOnce();
  const closed = connection.close();
  open();
  await closed;
  const { length, progress } = await sessions.get("s");
  expect([length, progress.frames]).toEqual([3, 1]);
  await (await sessions.acquire("s")).end();
});

it("what is asked of a stream behind its end finds none", async () => {
  const fake = await FakeConnection.open(NAME);
  const { connection, engine } = fake;
  const submit = vi.spyOn(engine, "submit");
  await fake.say({ type: "open", stream: 1 });
  void fake.say({ type: "close", stream: 1 });
  void fake.push(1, "abc");
  await fake.say({ type: "generate", stream: 1 });
  await settled();
  expect(told(fake)).toEqual(["opened 1", "closed 1", "error 1", "error 1"]);
  expect(submit).not.toHaveBeenCalled();
  await connection.close();
});

/** Sessions are made when what it returns is called. */
function holdBackCreating(sessions: FakeConnection["sessions"]): () => void {
  const { opened, open } = gate();
  const create = sessions.create.bind(sessions);
  vi.spyOn(sessions, "create").mockImplementation(async (...args) => {
    await opened;
    return create(...args);
  });
  return open;
}

it("a fork has its number from the start", async () => {
  const fake = await FakeConnection.open(NAME);
  const { connection, sessions } = fake;
  const open = holdBackCreating(sessions);
  await fake.say({ type: "open", stream: 1 });
  await fake.say({ type: "fork", stream: 1, into: 2, session_id: "s" });
  await fake.say({ type: "open", stream: 2 });
  open();
  await settled();
  expect(told(fake).sort()).toEqual(["error 2", "forked 1", "opened 1", "opened 2"]);
  expect(fake.socket.told.filter(({ type }) => type === "opened")).toMatchObject([
    { session_id: null },
    { session_id: "s" },
  ]);
  await connection.close();
  await (await sessions.acquire("s")).end();
});

it("a fork that cannot be made says so once, and leaves its number to others", async () => {
  const fake = await FakeConnection.open(NAME);
  await fake.sessions.create("s");
  await fake.say({ type: "open", stream: 1 });
  await fake.say({ type: "fork", stream: 1, into: 2, session_id: "s" });
  expect(told(fake)).toEqual(["opened 1", "error 1"]);
  await fake.say({ type: "open", stream: 2 });
  expect(told(fake).at(-1)).toBe("opened 2");
  await fake.connection.close();
});

it("a fork that is under way when the connection is closed lets go of its session and of the model", async () => {
  const fake = await FakeConnection.open(NAME);
  const { connection, engine, models, sessions } = fake;
  const open = holdBackCreating(sessions);
  await fake.say({ type: "open", stream: 1 });
  await fake.say({ type: "fork", stream: 1, into: 2, session_id: "s" });
  const closed = connection.close();
  open();
  await closed;
  await settled();
  await (await sessions.acquire("s")).end();
  await models.registry.unload(NAME);
  await settled();
  expect(engine.state).toBe("closed");
});

it("a stream whose session could not be changed ends: whoever opens it again finds the counts of what is kept", async () => {
  const fake = await FakeConnection.open(NAME);
  const { connection, sessions } = fake;
  const acquire = sessions.acquire.bind(sessions);
  vi.spyOn(sessions, "acquire").mockImplementationOnce(async (...args) => {
    const acquired = await acquire(...args);
    const commit = vi.fn(acquired.commit);
    commit.mockRejectedValueOnce(new MblmError("store_unavailable", "The store does not answer."));
    return { ...acquired, commit };
  });
  await sessions.create("s");
  await fake.say({ type: "open", stream: 1, session_id: "s" });
  await fake.say({ type: "snapshot", stream: 1 });
  await fake.say({ type: "open", stream: 2, session_id: "s" });
  expect(told(fake)).toEqual(["opened 1", "error 1", "opened 2"]);
  expect(fake.socket.told[1]).not.toHaveProperty("frame");
  expect(fake.socket.told[2]).toMatchObject({ frames: 0, said_messages: 0 });
  await connection.close();
});
