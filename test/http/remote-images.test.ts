import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MblmError } from "../../src/errors.js";
import { isPublicAddress } from "../../src/http/vqa/public-address.js";
import { type Network, parseHosts, RemoteImages } from "../../src/http/vqa/remote-images.js";
import { scratchFolder } from "../scratch-folder.js";

const HOST = "images.test";
const NEVER = new AbortController().signal;

let server: Server;
let network: Network;
let handle: (request: IncomingMessage, response: ServerResponse) => void;
let numRequests = 0;

/** A host of our own with a certificate for its name, which resolves to this machine. */
beforeAll(async () => {
  const folder = scratchFolder("tls");
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const options = ["-subj", `/CN=${HOST}`, "-addext", `subjectAltName=DNS:${HOST}`, "-days", "2", "-nodes"];
  const files = ["-keyout", key, "-out", cert];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", ...options, ...files], { stdio: "ignore" });
  const ca = readFileSync(cert, "utf8");
  server = createServer({ key: readFileSync(key), cert: ca }, (request, response) => {
    numRequests++;
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  network = {
    resolve: (_, callback) => callback(null, [{ address: "127.0.0.1", family: 4 }]),
    isAllowed: () => true,
    port: (server.address() as AddressInfo).port,
    ca,
  };
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const remote = (changes: Partial<Network> = {}): RemoteImages =>
  new RemoteImages({ hosts: new Set([HOST, "other.test"]), maxBytes: 1000 }, { ...network, ...changes });
const get = (url = `https://${HOST}/a.png`, changes: Partial<Network> = {}): Promise<Uint8Array> =>
  remote(changes).fetch(url, "image_url", NEVER);
const answer =
  (status: number, body: string | Buffer, headers: Record<string, string> = {}): typeof handle =>
  (_, response) =>
    void response.writeHead(status, headers).end(body);

describe("an image of a listed host", () => {
  it("is fetched, without anything that says who asks", async () => {
    let seen: IncomingMessage | undefined;
    handle = (request, response) => {
      seen = request;
      response.end("bytes");
    };
    expect(Buffer.from(await get(`https://${HOST}/a/b.png?c=d`)).toString()).toBe("bytes");
    expect(seen!.url).toBe("/a/b.png?c=d");
    expect(Object.keys(seen!.headers).sort()).toEqual(["accept", "accept-encoding", "connection", "host"]);
  });

  it.each<[string, () => void, RegExp]>([
    ["a redirect", () => (handle = answer(302, "", { location: `https://${HOST}/b.png` })), /302; redirects are not/],
    ["an error", () => (handle = answer(404, "no")), /404/],
    ["a compressed answer", () => (handle = answer(200, "x", { "content-encoding": "gzip" })), /compressed/],
    ["a broken connection", () => (handle = (request) => void request.socket.destroy()), /cannot be fetched/],
  ])("is refused after %s", async (_, prepare, message) => {
    prepare();
    const before = numRequests;
    await expect(get()).rejects.toMatchObject({
      code: "invalid_request",
      field: "image_url",
      message: expect.stringMatching(message),
    });
    expect(numRequests).toBe(before + 1);
  });

  it("is refused when it is too large, said or not", async () => {
    handle = answer(200, Buffer.alloc(1001));
    await expect(get()).rejects.toMatchObject({ code: "body_too_large", field: "image_url" });
    handle = (_, response) => {
      const more = (): boolean => response.write(Buffer.alloc(500), () => response.destroyed || more());
      more();
    };
    await expect(get()).rejects.toMatchObject({ code: "body_too_large" });
    handle = answer(200, Buffer.alloc(1000));
    expect(await get()).toHaveLength(1000);
  });

  it.each([
    ["the client is gone", undefined, "aborted"],
    ["its time is over", new MblmError("deadline_exceeded", "The time is over."), "deadline_exceeded"],
  ])("is given up when %s, with its connection", async (_, reason, code) => {
    const controller = new AbortController();
    const arrived = new Promise<IncomingMessage>((resolve) => {
      handle = resolve;
    });
    const pending = remote().fetch(`https://${HOST}/`, "image_url", controller.signal);
    const { socket } = await arrived;
    controller.abort(reason);
    await expect(pending).rejects.toMatchObject({ code });
    await expect.poll(() => socket.destroyed).toBe(true);
  });

  it("is refused with a certificate for another name", async () => {
    handle = answer(200, "x");
    const before = numRequests;
    await expect(get("https://other.test/")).rejects.toMatchObject({ code: "invalid_request" });
    expect(numRequests).toBe(before);
  });

  it("is refused when any address of the host is not public, before anything is sent", async () => {
    handle = answer(200, "x");
    const before = numRequests;
    for (const addresses of [
      [{ address: "127.0.0.1", family: 4 }],
      [
        { address: "93.184.216.34", family: 4 },
        { address: "169.254.169.254", family: 4 },
      ],
      [{ address: "::ffff:127.0.0.1", family: 6 }],
      [],
    ]) {
      const changes: Partial<Network> = {
        resolve: (_, callback) => callback(null, addresses),
        isAllowed: isPublicAddress,
      };
      await expect(get(undefined, changes)).rejects.toMatchObject({ message: expect.stringContaining("not public") });
    }
    expect(numRequests).toBe(before);
  });
});

describe("URLs that are refused without looking anything up", () => {
  it.each([
    "http://images.test/a.png",
    "ftp://images.test/a.png",
    "file:///etc/passwd",
    "//images.test/a.png",
    "nonsense",
    "https://elsewhere.test/a.png",
    "https://images.test.elsewhere.test/a.png",
    "https://sub.images.test/a.png",
    "https://images.test./a.png",
    "https://images.test:8443/a.png",
    "https://user@images.test/a.png",
    "https://user:pass@images.test/a.png",
    "https://127.0.0.1/a.png",
    "https://2130706433/a.png",
    "https://[::1]/a.png",
    "https://images.test@127.0.0.1/a.png",
  ])("%s", async (url) => {
    const resolve = (): never => {
      throw new Error("looked up");
    };
    await expect(get(url, { resolve })).rejects.toMatchObject({ code: "invalid_request", field: "image_url" });
  });

  it("all, where no host is listed", async () => {
    const none = new RemoteImages({ hosts: parseHosts(""), maxBytes: 1000 }, network);
    await expect(none.fetch(`https://${HOST}/`, "image_url", NEVER)).rejects.toMatchObject({
      message: expect.stringContaining("must be a data: URL"),
    });
  });
});

describe("addresses", () => {
  it.each(["93.184.216.34", "8.8.8.8", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"])(
    "%s is public",
    (address) => expect(isPublicAddress(address)).toBe(true),
  );
  it.each([
    ...[
      "0.0.0.0",
      "10.1.2.3",
      "100.64.0.1",
      "127.0.0.1",
      "169.254.169.254",
      "172.16.0.1",
      "172.31.255.255",
      "192.168.1.1",
    ],
    ...["192.0.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "64:ff9b::7f00:1"],
    ...[
      "fe80::1",
      "fc00::1",
      "fd12::1",
      "ff02::1",
      "2001::1",
      "2001:db8::1",
      "2002:7f00:1::",
      "localhost",
      "",
      "1.2.3",
    ],
  ])("%s is not", (address) => expect(isPublicAddress(address)).toBe(false));
});

describe("the list of hosts", () => {
  it("is names, separated by commas", () => {
    expect([...parseHosts(" a.example.org,B.example.org ,")]).toEqual(["a.example.org", "b.example.org"]);
    for (const list of ["*", "*.example.org", "https://example.org", "example.org:8443", "127.0.0.1", "localhost"]) {
      expect(() => parseHosts(list)).toThrow(/allowed_image_hosts: .* is not the name of a host/);
    }
  });
});
