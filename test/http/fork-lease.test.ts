import { EventEmitter } from "node:events";
import { expect, it } from "vitest";
import type { WebSocket } from "ws";
import type { ServerContext } from "../../src/http/app-context.js";
import { Lifecycle } from "../../src/http/lifecycle.js";
import { StreamConnection } from "../../src/http/stream/connection.js";
import { openSessionStore } from "../../src/session/open-session-store.js";
import type { AcquiredSession } from "../../src/session/session-store.js";
import { FakeModels, settled } from "./fake-models.js";

const NAME = "mamba2";

/** The client's end: what it was told. */
class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readonly readyState = 1;
  readonly bufferedAmount = 0;
  readonly told: { readonly type: string; readonly stream: number; readonly code?: string }[] = [];

  send(data: string): void {
    this.told.push(JSON.parse(data));
  }

  resume(): void {}
}

/** A connection whose forks get their sessions when the test says so. */
async function connect() {
  const models = await FakeModels.open([NAME]);
  const loaded = models.registry.load();
  const engine = await models.finish(NAME);
  await loaded;
  const sessions = await openSessionStore({
    maxSessions: 10,
    maxBytes: 1e9,
    ttlSeconds: 100,
    dir: "",
    maxDiskBytes: 0,
    url: "",
    prefix: "",
    save: "change",
    now: () => 1000,
    report: () => {},
  });
  let give = (): void => {};
  const asked = new Promise<void>((resolve) => {
    give = resolve;
  });
  const acquire = sessions.acquire.bind(sessions);
  sessions.acquire = async (id): Promise<AcquiredSession> => {
    await asked;
    return acquire(id);
  };
  const server = {
    ...models.options,
    lifecycle: new Lifecycle(),
    sessions,
    models: models.registry,
  } as unknown as ServerContext;
  const socket = new FakeSocket();
  const requester = { caller: undefined, trace: undefined, deadline: undefined } as never;
  const connection = new StreamConnection(socket as unknown as WebSocket, server, requester, "test");
  const say = async (message: object): Promise<void> => {
    connection.receive(Buffer.from(JSON.stringify(message)), false);
    await settled();
  };
  const told = (): string[] => socket.told.map(({ type, stream }) => `${type} ${stream}`);
  return { connection, say, told, give, engine, sessions, models };
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
