import { expect, it } from "vitest";
import type { AcquiredSession } from "../../src/session/session-store.js";
import { FakeConnection } from "./fake-connection.js";
import { settled } from "./fake-models.js";

const NAME = "mamba2";

/** A connection whose forks get their sessions when the test says so. */
async function connect() {
  const fake = await FakeConnection.open(NAME);
  const { sessions } = fake;
  let give = (): void => {};
  const asked = new Promise<void>((resolve) => {
    give = resolve;
  });
  const acquire = sessions.acquire.bind(sessions);
  sessions.acquire = async (id): Promise<AcquiredSession> => {
    await asked;
    return acquire(id);
  };
  const say = (message: object): Promise<void> => fake.say(message);
  const told = (): string[] => fake.socket.told.map(({ type, stream }) => `${type} ${stream}`);
  return { ...fake, say, told, give };
}

it("a fork has the model from the start, even if the stream that it is of is closed before its session is there", async () => {
  const { connection, say, told, give, engine, models } = await connect();
  await say({ type: "open", stream: 1 });
  await say({ type: "fork", stream: 1, into: 2, session_id: "s" });
  await say({ type: "close", stream: 1 });
  expect(told()).toEqual(["opened 1", "forked 1", "closed 1"]);
  await models.registry.unload(NAME);
  await settled();
  expect(engine.state).toBe("ready");
  give();
  await settled();
  expect(told().at(-1)).toBe("opened 2");
  expect(engine.state).toBe("ready");
  await connection.close();
  await settled();
  expect(engine.state).toBe("closed");
});

it("a fork that does not get its session lets go of the model", async () => {
  const { connection, say, told, give, engine, sessions, models } = await connect();
  await say({ type: "open", stream: 1 });
  await say({ type: "fork", stream: 1, into: 2, session_id: "s" });
  await sessions.delete("s");
  give();
  await settled();
  expect(told()).toEqual(["opened 1", "forked 1", "error 2"]);
  await say({ type: "close", stream: 1 });
  await models.registry.unload(NAME);
  await settled();
  expect(engine.state).toBe("closed");
  await connection.close();
});
