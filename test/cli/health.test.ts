import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { builtPackage } from "../built-package.js";
import { scratchFolder } from "../scratch-folder.js";
import { bundleDir } from "../test-bundles.js";

const folder = scratchFolder("health");
let main: string;

beforeAll(() => {
  main = join(builtPackage(), "dist", "cli", "main.js");
}, 120_000);

interface Answer {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What the command says; servers of this process can answer meanwhile. */
function health(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Answer> {
  const env = { PATH: process.env.PATH, ...environment };
  return new Promise((resolve) => {
    execFile(process.execPath, [main, "health", ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** The port of a server that answers like that. */
async function listen(answer: RequestListener, host = "127.0.0.1"): Promise<string> {
  const server = createServer(answer).listen(0, host);
  await once(server, "listening");
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return String((server.address() as AddressInfo).port);
}

const says =
  (code: number, body: string): RequestListener =>
  (_, response) =>
    response.writeHead(code, { "content-type": "application/json" }).end(body);

describe("mblm-server health", () => {
  it("asks for readiness, or for what --check names", async () => {
    const port = await listen((request, response) => says(200, `{"status": "${request.url}"}`)(request, response));
    expect(await health(["--port", port])).toEqual({ code: 0, stdout: "/health/ready\n", stderr: "" });
    expect((await health(["--port", port, "--check", "startup"])).stdout).toBe("/health/startup\n");
    expect((await health(["--port", port, "--check", "live"])).stdout).toBe("/health/live\n");
  });

  it("reads settings as the server does, and asks an unspecified address on this machine", async () => {
    const port = await listen(says(200, '{"status": "ready"}'), "0.0.0.0");
    const file = join(folder, "port.yaml");
    writeFileSync(file, `port: ${port}\nhost: 0.0.0.0\n`);
    expect(await health([], { MBLM_CONFIG: file, MBLM_HOST: "0.0.0.0" })).toMatchObject({ code: 0 });
    expect(await health(["--config", file], { MBLM_PORT: "1" })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("http://127.0.0.1:1/health/ready: connect ECONNREFUSED"),
    });
    expect(await health(["--port", port], { MBLM_PORT: "1", PORT: "2" })).toMatchObject({ code: 0 });
  });

  it("says no, and why", async () => {
    const draining = await listen(says(503, '{"status": "draining"}'));
    expect(await health(["--port", draining])).toEqual({
      code: 1,
      stdout: "",
      stderr: `mblm-server: http://127.0.0.1:${draining}/health/ready: draining\n`,
    });
    const broken = await health(["--port", await listen(says(500, "oops"))]);
    expect(broken).toMatchObject({ code: 1, stderr: expect.stringContaining(": answered 500\n") });
    const stranger = await health(["--port", await listen(says(200, "<html>"))]);
    expect(stranger).toMatchObject({ code: 1, stderr: expect.stringContaining(": is no mblm-server\n") });
    const silent = await health(["--port", await listen(() => {}), "--timeout-seconds", "0.2"]);
    expect(silent).toMatchObject({ code: 1, stderr: expect.stringContaining(": no answer within 0.2 s\n") });
    const half = await listen((_, response) => response.writeHead(200).write("{"));
    const slow = await health(["--port", half, "--timeout-seconds", "0.2"]);
    expect(slow).toMatchObject({ code: 1, stderr: expect.stringContaining(": no answer within 0.2 s\n") });
  });

  it.each([
    [["--port", "0"], "port: 0 is a port that only the server knows"],
    [["--port", "x"], '--port: "x" must be integer'],
    [["--check", "well"], "Allowed choices are startup, ready, live"],
    [["--timeout-seconds", "0"], "from 0.1 to 60"],
  ])("is used wrongly with %j", async (args, complaint) => {
    expect(await health(args)).toMatchObject({ code: 2, stderr: expect.stringContaining(complaint) });
  });

  it("knows a real server with TLS from its start to its end", async () => {
    const [cert, key, file] = ["tls.crt", "tls.key", "tls.yaml"].map((name) => join(folder, name));
    const subject = ["-subj", "/CN=public.example", "-keyout", key!, "-out", cert!];
    execFileSync("openssl", ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", ...subject], {
      stdio: "ignore",
    });
    writeFileSync(file!, `tls_cert: ${cert}\ntls_key: ${key}\nlog_level: silent\nport: 0\n`);
    const env = { PATH: process.env.PATH, MBLM_CONFIG: file, MBLM_MODEL: bundleDir("mamba2-transformer") };
    const server = spawn(process.execPath, [main, "serve"], { env, stdio: ["ignore", "pipe", "inherit"] });
    cleanups.push(() => server.kill("SIGKILL"));
    let output = "";
    const port = await new Promise<string>((resolve) => {
      server.stdout.on("data", (data: Buffer) => {
        output += data.toString();
        const match = /listening on https:\/\/127\.0\.0\.1:(\d+)/.exec(output);
        if (match) resolve(match[1]!);
      });
    });
    const here = { MBLM_CONFIG: file!, MBLM_PORT: port };
    expect(await health([], here)).toEqual({ code: 0, stdout: "ready\n", stderr: "" });
    expect(await health(["--port", port, "--tls-cert", cert!])).toMatchObject({ code: 0 });
    expect(await health(["--port", port])).toMatchObject({ code: 1 }); // in the clear
    server.kill("SIGTERM");
    await once(server, "exit");
    expect(await health([], here)).toMatchObject({ code: 1, stderr: expect.stringContaining("ECONNREFUSED") });
  });
});
