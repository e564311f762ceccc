import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { builtPackage } from "../built-package.js";
import { complete } from "../http/api.js";
import { useApp } from "../http/test-app.js";
import { scratchFolder } from "../scratch-folder.js";
import { ChaosProxy } from "./chaos-proxy.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const browserPath = ["chromium", "chromium-browser", "google-chrome"]
  .map((name) => spawnSync("which", [name]).stdout.toString().trim())
  .find((path) => path !== "");
if (browserPath === undefined && process.env.REQUIRE_BROWSER) throw new Error("no Chromium is installed");

const app = useApp("mamba2-transformer", { corsOrigins: "*" });
let proxy: ChaosProxy;
let expected: string;

beforeAll(async () => {
  builtPackage();
  proxy = await ChaosProxy.start(() => Number(new URL(app().url).port));
  const body = { prompt: "Once upon a time", max_tokens: 4000, temperature: 0.9, seed: 3, return_token_ids: true };
  expected = JSON.stringify((await complete(app(), body)).choices[0]!.token_ids);
}, 120_000);
afterAll(() => proxy.stop());

/** A session's stream with the runtime's own WebSocket; `cut` breaks the connection. Returns what was generated. */
const PROGRAM = `
async function main({ MblmClient }, url, sessionId, cut) {
  const connection = new MblmClient({ baseUrl: url }).connect();
  const stream = await connection.open({ sessionId, create: true });
  await stream.push("Once upon ");
  await stream.push("a time");
  const bytes = [];
  let cutAt = 1000;
  for await (const piece of stream.generate({ maxTokens: 4000, temperature: 0.9, seed: 3 })) {
    bytes.push(...piece);
    if (bytes.length < cutAt) continue;
    cutAt += 1000;
    await cut();
  }
  await stream.close();
  connection.close();
  return JSON.stringify(bytes);
}`;

it("the client streams with Node's own WebSocket, on connections that break", async () => {
  const program = `
import * as client from ${JSON.stringify(join(root, "dist", "client", "index.js"))};
import { createInterface } from "node:readline";
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const cut = async () => { console.log("cut"); await lines.next(); };
${PROGRAM}
console.log(await main(client, process.argv[2], "node", cut));
process.exit(0);
`;
  const path = join(scratchFolder("own-websockets"), "program.mjs");
  writeFileSync(path, program);
  const before = proxy.numCuts;
  const child = execFile(process.execPath, ["--experimental-websocket", "--no-warnings", path, proxy.url]);
  let [output, problems] = ["", ""];
  child.stdout!.on("data", (text: string) => {
    output += text;
    if (!text.includes("cut\n")) return;
    proxy.cut();
    child.stdin!.write("done\n");
  });
  child.stderr!.on("data", (text: string) => {
    problems += text;
  });
  await new Promise((resolve) => child.once("exit", resolve));
  expect(problems).toBe("");
  expect(output.endsWith(`\n${expected}\n`)).toBe(true);
  expect(proxy.numCuts - before).toBeGreaterThan(2);
}, 60_000);

describe.runIf(browserPath !== undefined)("in a browser", () => {
  let site: Server;
  let browser: Browser;
  beforeAll(async () => {
    site = createServer((request, response) => {
      const path = request.url!;
      if (path === "/") {
        response.setHeader("content-type", "text/html");
        const imports = { "eventsource-parser": "/node_modules/eventsource-parser/dist/index.js" };
        response.end(`<script type="importmap">${JSON.stringify({ imports })}</script><title>test</title>`);
        return;
      }
      const file = join(root, path);
      if (!existsSync(file)) {
        response.writeHead(404).end();
        return;
      }
      response.setHeader("content-type", extname(path) === ".js" ? "text/javascript" : "text/plain");
      response.end(readFileSync(file));
    });
    await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
    const quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
    browser = await chromium.launch({ executablePath: browserPath!, args: quiet });
  }, 60_000);
  afterAll(async () => {
    await browser?.close();
    site.close();
  });

  it("the client streams, on connections that break", async () => {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`);
    await page.exposeFunction("cut", () => proxy.cut());
    const before = proxy.numCuts;
    const output = await page.evaluate(`(async () => {
      ${PROGRAM}
      return main(await import("/dist/client/index.js"), ${JSON.stringify(proxy.url)}, "browser", window.cut);
    })()`);
    expect(output === expected).toBe(true);
    expect(proxy.numCuts - before).toBeGreaterThan(2);
  }, 60_000);
});
