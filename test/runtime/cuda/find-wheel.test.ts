import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { findWheel } from "../../../src/runtime/cuda/find-wheel.js";
import { HttpClient } from "../../../src/runtime/cuda/http-client.js";
import { proxyFor } from "../../../src/runtime/cuda/proxy.js";
import { isWanted, parseWheelName } from "../../../src/runtime/cuda/wheel-name.js";
import { FileServer, serveText } from "./file-server.js";

const JSON_TYPE = "application/vnd.pypi.simple.v1+json";
const SHA256 = "ab".repeat(32);
const WANTED = "onnxruntime_gpu-1.30.0-cp312-cp312-manylinux_2_28_x86_64.whl";
const OTHERS = [
  "onnxruntime_gpu-1.29.0-cp312-cp312-manylinux_2_28_x86_64.whl",
  "onnxruntime_gpu-1.30.0-cp312-cp312-win_amd64.whl",
  "onnxruntime_gpu-1.30.0-cp312-cp312-manylinux_2_34_aarch64.whl",
  "onnxruntime_gpu-1.30.0.tar.gz",
];

let server: FileServer;
const http = new HttpClient({});
beforeAll(async () => {
  server = await FileServer.start();
});
afterAll(async () => {
  await http.close();
  await server.stop();
});
beforeEach(() => server.pages.clear());

interface Listed {
  readonly filename: string;
  readonly url?: string;
  readonly hashes?: Record<string, string>;
  readonly size?: number;
  readonly yanked?: boolean | string;
}

function listJson(...files: Listed[]): void {
  const complete = files.map((file) => ({ url: `../files/${file.filename}`, hashes: { sha256: SHA256 }, ...file }));
  server.pages.set("/simple/onnxruntime-gpu/", serveText(JSON_TYPE, JSON.stringify({ files: complete })));
}
const find = (index = `${server.url}/simple`) => findWheel(http, index, "onnxruntime_gpu", "1.30.0");

describe("a package index", () => {
  it("gives the wheel of the version and platform, as JSON", async () => {
    listJson(...OTHERS.map((filename) => ({ filename })), { filename: WANTED, size: 5 });
    expect(await find()).toEqual({
      name: WANTED,
      url: `${server.url}/simple/files/${WANTED}`,
      sha256: SHA256,
      size: 5,
    });
    expect(server.requests.at(-1)!.headers.accept).toContain(JSON_TYPE);
  });

  it("gives it as a page of links", async () => {
    const link = (name: string, more = ""): string =>
      `<a href="../../f/${name}?a=1&amp;b=2#sha256=${SHA256}" ${more}>${name}</a>`;
    const page = `<!DOCTYPE html><html><body>${OTHERS.map((name) => link(name)).join("<br>\n")}${link(WANTED)}</body></html>`;
    server.pages.set("/simple/onnxruntime-gpu/", serveText("text/html", page));
    expect(await find(`${server.url}/simple/`)).toEqual({
      name: WANTED,
      url: `${server.url}/f/${WANTED}?a=1&b=2`,
      sha256: SHA256,
      size: undefined,
    });
    server.pages.set("/simple/onnxruntime-gpu/", serveText("text/html", link(WANTED, 'data-yanked=""')));
    await expect(find()).rejects.toThrow("has no wheel of onnxruntime_gpu 1.30.0");
  });

  it("follows redirections, and takes relative addresses from where they lead", async () => {
    listJson({ filename: WANTED, url: `./${WANTED}` });
    server.pages.set("/moved/onnxruntime-gpu/", (_, response) => {
      response.writeHead(302, { location: "/simple/onnxruntime-gpu/" }).end();
    });
    expect(await find(`${server.url}/moved`)).toMatchObject({ url: `${server.url}/simple/onnxruntime-gpu/${WANTED}` });
    server.pages.set("/round/onnxruntime-gpu/", (_, response) => {
      response.writeHead(302, { location: "/round/onnxruntime-gpu/" }).end();
    });
    await expect(find(`${server.url}/round`)).rejects.toThrow("more than 5 redirections");
  });

  it("sends the login of its address, also for files of the same server, and never shows it", async () => {
    const address = server.url.replace("http://", "http://me:se%40cret@");
    listJson({ filename: WANTED });
    expect((await find(`${address}/simple`)).url).toBe(`${address}/simple/files/${WANTED}`);
    const login = Buffer.from("me:se@cret").toString("base64");
    expect(server.requests.at(-1)!.headers.authorization).toBe(`Basic ${login}`);
    listJson({ filename: WANTED, url: `http://127.0.0.2/${WANTED}` });
    expect((await find(`${address}/simple`)).url).toBe(`http://127.0.0.2/${WANTED}`);
    await expect(find(`${address}/nothing`)).rejects.toThrow(`${server.url}/nothing/onnxruntime-gpu/ answers 404`);
  });

  it.each<[string, Listed[], RegExp]>([
    ["another version", OTHERS.map((filename) => ({ filename })), /has no wheel of onnxruntime_gpu 1\.30\.0 for Linux/],
    ["a wheel that was withdrawn", [{ filename: WANTED, yanked: "broken" }], /has no wheel/],
    ["no SHA-256", [{ filename: WANTED, hashes: { md5: "00" } }], /gives no SHA-256 of onnxruntime_gpu-1\.30\.0/],
  ])("will not do with %s", async (_, files, message) => {
    listJson(...files);
    await expect(find()).rejects.toThrow(message);
  });

  it("is named when it cannot be reached", async () => {
    const closed = await FileServer.start();
    await closed.stop();
    await expect(find(`${closed.url}/simple`)).rejects.toMatchObject({
      code: "runtime_unavailable",
      message: expect.stringMatching(
        /^cannot reach http:\/\/127\.0\.0\.1:\d+\/simple\/onnxruntime-gpu\/: .*ECONNREFUSED/,
      ),
    });
  });

  it("is reached by way of a proxy", async () => {
    const tunnels: string[] = [];
    const proxy = createServer().on("connect", ({ url }, socket: Socket, head: Buffer) => {
      tunnels.push(url!);
      const target = connect(Number(new URL(server.url).port), "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        target.write(head);
        target.pipe(socket).pipe(target);
      });
      target.on("error", () => socket.destroy());
      socket.on("error", () => target.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const port = (proxy.address() as AddressInfo).port;
    const through = new HttpClient({ HTTP_PROXY: `http://127.0.0.1:${port}` });
    listJson({ filename: WANTED });
    try {
      expect((await findWheel(through, "http://index.example/simple", "onnxruntime-gpu", "1.30.0")).name).toBe(WANTED);
      expect(tunnels).toEqual(["index.example:80"]);
    } finally {
      await through.close();
      proxy.closeAllConnections();
      proxy.close();
    }
  });
});

describe("the proxy of an address", () => {
  const proxyOf = (address: string, environment: Record<string, string>) => proxyFor(new URL(address), environment);
  const both = { HTTP_PROXY: "http://plain:1", HTTPS_PROXY: "secure:2" };

  it("is that of its protocol; lower case wins", () => {
    expect(proxyOf("http://a.b", both)).toBe("http://plain:1");
    expect(proxyOf("https://a.b", both)).toBe("http://secure:2");
    expect(proxyOf("https://a.b", { ...both, https_proxy: "http://lower:3" })).toBe("http://lower:3");
    expect(proxyOf("https://a.b", {})).toBeUndefined();
  });

  it.each([
    ["a.example.com", false],
    ["other.com", true],
    ["example.com", false],
    ["notexample.com", true],
    ["local", false],
    ["ported:8080", false],
    ["ported:8081", true],
    ["ported", true],
  ])("%s is reached by it: %s", (host, isProxied) => {
    const environment = { ...both, NO_PROXY: "x.y, .Example.com local,ported:8080" };
    expect(proxyOf(`http://${host}/path`, environment) !== undefined).toBe(isProxied);
  });

  it("is never used with *", () => {
    expect(proxyOf("https://a.b", { ...both, NO_PROXY: "*" })).toBeUndefined();
  });
});

describe("the name of a wheel", () => {
  it("says project, version and platforms", () => {
    expect(
      parseWheelName("Nvidia_CUDA.Runtime-13.0.96-1-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"),
    ).toEqual({
      project: "nvidia-cuda-runtime",
      version: "13.0.96",
      platforms: ["manylinux2014_x86_64", "manylinux_2_17_x86_64"],
    });
    expect(parseWheelName("onnxruntime_gpu-1.30.0.tar.gz")).toBeUndefined();
  });

  it("fits one version on Linux for x86-64", () => {
    expect(isWanted(WANTED, "onnxruntime-gpu", "1.30.0")).toBe(true);
    for (const other of OTHERS) expect(isWanted(other, "onnxruntime-gpu", "1.30.0")).toBe(false);
    expect(isWanted(WANTED, "onnxruntime", "1.30.0")).toBe(false);
  });
});
