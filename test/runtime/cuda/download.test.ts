import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { download } from "../../../src/runtime/cuda/download.js";
import { HttpClient } from "../../../src/runtime/cuda/http-client.js";
import { scratchFolder } from "../../scratch-folder.js";
import { breakAfter, FileServer, type Handler, serveBytes } from "./file-server.js";

const DATA = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251));
const SHA256 = createHash("sha256").update(DATA).digest("hex");

let server: FileServer;
const http = new HttpClient({});
beforeAll(async () => {
  server = await FileServer.start();
});
afterAll(async () => {
  await http.close();
  await server.stop();
});
beforeEach(() => {
  server.requests.length = 0;
});

/** Each request is answered by the next handler, the last one for ever. */
function inTurn(...handlers: Handler[]): Handler {
  let next = 0;
  return (request, response) => handlers[Math.min(next++, handlers.length - 1)]!(request, response);
}
const status =
  (code: number): Handler =>
  (_, response) => {
    response.writeHead(code).end();
  };

async function fetchTo(
  path: string,
  handler: Handler,
  size: number | undefined = DATA.length,
  onProgress: (received: number) => void = () => {},
) {
  server.pages.set("/a.whl", handler);
  const file = { name: "a.whl", url: `${server.url}/a.whl`, sha256: SHA256, size };
  await download(http, file, path, { retryMilliseconds: 1, onProgress });
}
const newPath = (): string => join(scratchFolder("download"), "a.whl");
const ranges = (): (string | undefined)[] => server.requests.map(({ headers }) => headers.range);

describe("a download", () => {
  it("fetches a file and tells how far it is", async () => {
    const path = newPath();
    const seen: number[] = [];
    await fetchTo(path, serveBytes(DATA), undefined, (received) => seen.push(received));
    expect(readFileSync(path).equals(DATA)).toBe(true);
    expect(seen.at(-1)).toBe(DATA.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(existsSync(`${path}.part`)).toBe(false);
  });

  it("goes on where the connection broke", async () => {
    const path = newPath();
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    await fetchTo(path, inTurn(breakAfter(DATA, 100_000, begun), serveBytes(DATA)), DATA.length, begin);
    expect(readFileSync(path).equals(DATA)).toBe(true);
    expect(ranges()).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
  });

  it("goes on with what an earlier call left, without asking for it again", async () => {
    const path = newPath();
    writeFileSync(`${path}.part`, DATA.subarray(0, 123));
    await fetchTo(path, serveBytes(DATA));
    expect(readFileSync(path).equals(DATA)).toBe(true);
    expect(ranges()).toEqual(["bytes=123-"]);
  });

  it("asks for nothing when all is there", async () => {
    const path = newPath();
    writeFileSync(`${path}.part`, DATA);
    await fetchTo(path, status(500));
    expect(readFileSync(path).equals(DATA)).toBe(true);
    expect(server.requests).toEqual([]);
  });

  it("starts anew when the server does not know ranges", async () => {
    const path = newPath();
    writeFileSync(`${path}.part`, DATA.subarray(0, 123));
    await fetchTo(path, (_, response) => void response.end(DATA));
    expect(readFileSync(path).equals(DATA)).toBe(true);
  });

  it.each([
    ["of another file", Buffer.from("something else"), undefined],
    ["longer than the file", Buffer.concat([DATA, DATA]), undefined],
    ["of the right size and wrong", Buffer.alloc(DATA.length), DATA.length],
  ])("starts anew when what was left is %s", async (_, left, size) => {
    const path = newPath();
    writeFileSync(`${path}.part`, left);
    await fetchTo(path, serveBytes(DATA), size);
    expect(readFileSync(path).equals(DATA)).toBe(true);
  });

  it("tries again when the server is busy", async () => {
    const path = newPath();
    await fetchTo(path, inTurn(status(503), status(429), serveBytes(DATA)));
    expect(readFileSync(path).equals(DATA)).toBe(true);
  });

  it("gives up after five tries, and keeps what it has", async () => {
    const path = newPath();
    writeFileSync(`${path}.part`, DATA.subarray(0, 10));
    await expect(fetchTo(path, status(502))).rejects.toThrow("the server answers 502");
    expect(server.requests).toHaveLength(5);
    expect(existsSync(path)).toBe(false);
    expect(readFileSync(`${path}.part`)).toHaveLength(10);
  });

  it("takes a refusal as it is", async () => {
    await expect(fetchTo(newPath(), status(403))).rejects.toMatchObject({
      code: "runtime_unavailable",
      message: `${server.url}/a.whl answers 403`,
    });
    expect(server.requests).toHaveLength(1);
  });

  it("never gives a file with another SHA-256", async () => {
    const path = newPath();
    await expect(fetchTo(path, serveBytes(Buffer.alloc(DATA.length)))).rejects.toThrow(/its SHA-256 is [0-9a-f]{64}$/);
    expect(existsSync(path)).toBe(false);
    expect(existsSync(`${path}.part`)).toBe(false);
  });

  it("says where it cannot write", async () => {
    await expect(fetchTo("/nowhere/a.whl", serveBytes(DATA))).rejects.toThrow("cannot write /nowhere/a.whl.part");
    expect(server.requests).toHaveLength(1);
  });
});
