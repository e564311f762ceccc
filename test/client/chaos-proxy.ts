import type { AddressInfo } from "node:net";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy that can cut every connection, also after so many more bytes. */
export class ChaosProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Bytes to pass on, in both directions together, before everything is cut. */
  #left = Number.POSITIVE_INFINITY;
  numCuts = 0;

  private constructor(private readonly target: () => number) {
    this.#server = createServer((client) => this.#join(client));
  }

  /** @param target port to forward to, asked at every connection */
  static async start(target: () => number): Promise<ChaosProxy> {
    const proxy = new ChaosProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cutAfter(numBytes: number): void {
    this.#left = numBytes;
  }

  cut(): void {
    this.numCuts++;
    this.#left = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket): void {
    const server = connect(this.target(), "127.0.0.1");
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => to.destroy());
      from.on("data", (data) => {
        const passed = Math.min(this.#left, data.length);
        to.write(data.subarray(0, passed));
        this.#left -= passed;
        // What was passed on still arrives.
        if (this.#left === 0) setImmediate(() => this.cut());
      });
    }
  }
}
