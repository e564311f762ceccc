import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const BINARIES = ["valkey-server", "redis-server"];

/** The program to test with; undefined where none is installed, which a run that must not skip anything forbids. */
const binary = BINARIES.find((name) => spawnSync(name, ["--version"]).status === 0);
if (binary === undefined && process.env.REQUIRE_VALKEY) throw new Error(`none of ${BINARIES.join(", ")} is installed`);
export const hasValkey = binary !== undefined;

/** A real Valkey server of its own, which can go away and come back with its data. */
export class ValkeyServer {
  readonly #folder = mkdtempSync(join(tmpdir(), "valkey-"));
  #process: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly maxMemory: string,
  ) {}

  static async start({ maxMemory = "0" } = {}): Promise<ValkeyServer> {
    const server = new ValkeyServer(await freePort(), maxMemory);
    await server.resume();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Everything written is on the disk before it is acknowledged. */
  async resume(): Promise<void> {
    const options = ["--port", `${this.port}`, "--dir", this.#folder, "--save", "", "--appendonly", "yes"];
    const child = spawn(binary!, [...options, "--appendfsync", "always", "--maxmemory", this.maxMemory], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#process = child;
    await new Promise<void>((resolve, reject) => {
      child.once("exit", () => reject(new Error(`${binary} ended`)));
      child.stdout!.on("data", (text: Buffer) => {
        if (text.toString().includes("Ready to accept connections")) resolve();
      });
    });
  }

  async kill(): Promise<void> {
    const child = this.#process!;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
