import type { ServerContext } from "../../src/http/app-context.js";
import { Lifecycle } from "../../src/http/lifecycle.js";
import { StreamConnection } from "../../src/http/stream/connection.js";
import { openSessionStore } from "../../src/session/open-session-store.js";
import type { SessionStore } from "../../src/session/session-store.js";
import type { EngineClient } from "../../src/worker/engine-client-interface.js";
import { FakeModels, settled } from "./fake-models.js";
import { FakeSocket } from "./fake-socket.js";

/** The server's side of a WebSocket, with a model whose engine does nothing, and sessions in memory. */
export class FakeConnection {
  private constructor(
    readonly models: FakeModels,
    readonly engine: EngineClient,
    readonly sessions: SessionStore,
    readonly socket: FakeSocket,
    readonly connection: StreamConnection,
  ) {}

  static async open(model: string): Promise<FakeConnection> {
    const models = await FakeModels.open([model]);
    const loaded = models.registry.load();
    const engine = await models.finish(model);
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
    const server = {
      ...models.options,
      lifecycle: new Lifecycle(),
      sessions,
      models: models.registry,
    } as unknown as ServerContext;
    const socket = new FakeSocket();
    const requester = { caller: undefined, trace: undefined, deadline: undefined } as never;
    return new FakeConnection(
      models,
      engine,
      sessions,
      socket,
      new StreamConnection(socket as never, server, requester, "test"),
    );
  }

  /** The client says something, and all that waits for nothing else goes on. */
  async say(message: object): Promise<void> {
    this.connection.receive(Buffer.from(JSON.stringify(message)), false);
    await settled();
  }

  async push(stream: number, bytes: string): Promise<void> {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(stream);
    this.connection.receive(Buffer.concat([header, Buffer.from(bytes)]), true);
    await settled();
  }
}
