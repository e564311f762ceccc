import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { get as httpsGet } from "node:https";
import { connect } from "node:net";
import { join } from "node:path";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { loadConfig } from "../../src/config/load-config.js";
import { buildApp } from "../../src/http/build-app.js";
import { scratchFolder } from "../scratch-folder.js";
import { bundleDir } from "../test-bundles.js";
import { json, post, streamEvents } from "./api.js";
import { connected } from "./raw-client.js";
import { postCompletion, startApp, untilIdle, useApp } from "./test-app.js";

const MODEL = "mamba2-transformer";
const ENDLESS = { prompt: "a", max_tokens: 1e6 };
const JSON_TYPE = "application/json";
const timed = (milliseconds: string) => ({
  headers: { "content-type": "application/json", "x-request-timeout-ms": milliseconds },
});

describe("a request that cannot be read", () => {
  const app = useApp(MODEL);
  /** What the server says to some bytes, until it closes the connection. */
  const answerTo = (bytes: string): Promise<string> =>
    new Promise((resolve, reject) => {
      let said = "";
      const socket = connect(Number(new URL(app().url).port), "127.0.0.1", () => socket.write(bytes));
      socket.on("data", (part) => {
        said += part.toString();
      });
      socket.on("close", () => resolve(said));
      socket.on("error", reject);
    });

  it.each([
    [
      "a line that is too long",
      `GET /${"x".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      431,
      /larger than 16384 bytes/,
    ],
    ["something else", "Good day\r\n\r\n", 400, /not a request/],
  ])("is refused in the shape of every failure: %s", async (_, bytes, status, message) => {
    const [head, body] = (await answerTo(bytes)).split("\r\n\r\n");
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(JSON.parse(body!)).toEqual({
      error: {
        message: expect.stringMatching(message),
        type: "invalid_request_error",
        param: null,
        code: "invalid_request",
      },
    });
  });
});

describe("the time of a request", () => {
  const app = useApp(MODEL, { slots: 1 });

  it("ends it with 408 wherever it is: running or waiting", async () => {
    const [running, waiting] = await Promise.all([
      postCompletion(app(), ENDLESS, timed("400")),
      postCompletion(app(), { ...ENDLESS, prompt: "b" }, timed("300")),
    ]);
    for (const response of [running!, waiting!]) {
      expect(response.status).toBe(408);
      expect(response.headers.get("x-should-retry")).toBe("false");
      expect((await json(response)).error.code).toBe("deadline_exceeded");
    }
    await untilIdle(app());
  });

  it("ends a stream with one error", async () => {
    const response = await postCompletion(app(), { ...ENDLESS, stream: true }, timed("300"));
    const events = (await response.text()).split("\n\n").filter((line) => line.startsWith("data: "));
    expect(events.length).toBeGreaterThan(2);
    expect(events.filter((event) => event.includes("deadline_exceeded"))).toEqual([events.at(-2)]);
    expect(events.at(-1)).toBe("data: [DONE]");
    await untilIdle(app());
  });

  it("does not touch one that is done in time, nor the next", async () => {
    const body = { prompt: "a", max_tokens: 20, temperature: 0 };
    const [inTime, unlimited] = await Promise.all([
      postCompletion(app(), body, timed("60000")),
      postCompletion(app(), body),
    ]);
    const texts = await Promise.all(
      [inTime!, unlimited!].map(async (one) => (await json<{ choices: unknown }>(one)).choices),
    );
    expect(texts[0]).toEqual(texts[1]);
  });

  it.each(["0", "-1", "soon", "1e3", "86400001"])("is refused as %s", async (milliseconds) => {
    const response = await postCompletion(app(), { prompt: "a" }, timed(milliseconds));
    expect(response.status).toBe(400);
    expect((await json(response)).error.param).toBe("x-request-timeout-ms");
  });

  it("has the server's limit, and covers every kind of work", async () => {
    const limited = await startApp(MODEL, { maxRequestSeconds: 0.3, slots: 1 });
    const events = await streamEvents<{ error?: { code: string } }>(limited, "/v1/completions", {
      ...ENDLESS,
      stream: true,
    });
    expect(events.at(-1)?.error?.code).toBe("deadline_exceeded");
    expect((await postCompletion(limited, ENDLESS, timed("60000"))).status).toBe(408);
    const bytes = new Uint8Array(3_000_000);
    expect((await fetch(`${limited.url}/v1/score`, { method: "POST", body: bytes })).status).toBe(408);
    await post(limited, "/v1/sessions", { id: "s" });
    expect((await fetch(`${limited.url}/v1/sessions/s/append`, { method: "POST", body: bytes })).status).toBe(408);
    await untilIdle(limited);
    await limited.stop();
  });
});

describe("a body that is read as a whole", () => {
  const FORM = '--b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\nPNG';
  /** Requests whose bodies do not come to their end. */
  const STALLED: [request: string, type: string, begun: string][] = [
    ["POST /v1/completions", JSON_TYPE, '{"prompt": "a'],
    ["POST /v1/chat/completions", JSON_TYPE, "{"],
    ["POST /v1/vqa", JSON_TYPE, '{"image": "'],
    ["POST /v1/vqa", "multipart/form-data; boundary=b", FORM],
    ["POST /tokenize", JSON_TYPE, ""],
    ["POST /v1/sessions", JSON_TYPE, "{"],
    ["PUT /v1/sessions/s/snapshot", "application/octet-stream", "abc"],
  ];

  it.each(STALLED)("has the time of its request: %s, %s", async (request, type, begun) => {
    const app = await startApp(MODEL, { uploadIdleSeconds: 0 });
    const client = await connected(app.url, request, [`content-type: ${type}`, "x-request-timeout-ms: 300"], 5000);
    client.write(begun);
    const { status, headers, body } = await client.answer();
    expect([status, body.error.code]).toEqual([408, "deadline_exceeded"]);
    expect(headers).toContain("x-should-retry: false");
    expect(app.lifecycle.numOpen).toBe(0);
    client.end();
    await app.stop();
  });

  it.each(STALLED)("may not stop coming: %s, %s", async (request, type, begun) => {
    const app = await startApp(MODEL, { uploadIdleSeconds: 0.3 });
    const client = await connected(app.url, request, [`content-type: ${type}`], 5000);
    client.write(begun);
    const { status, body } = await client.answer();
    expect([status, body.error]).toMatchObject([408, { code: "idle_timeout", param: "body" }]);
    client.end();
    await app.stop();
  });

  it.each(STALLED)("holds up no shutdown: %s, %s", async (request, type, begun) => {
    const app = await startApp(MODEL);
    const headers = [`content-type: ${type}`, "expect: 100-continue"];
    const client = await connected(app.url, request, headers, 5000);
    await client.continued(); // it waits for the body now
    client.write(begun);
    expect(await app.lifecycle.drain(3600)).toBe(0);
    const { status, body } = await client.answer();
    expect([status, body.error.code]).toEqual([503, "shutting_down"]);
    client.end();
    await app.stop();
  });

  it("is taken however slowly it comes, and its connection serves on", async () => {
    const app = await startApp(MODEL, { uploadIdleSeconds: 2 });
    const text = JSON.stringify({ prompt: "slowly", max_tokens: 3, temperature: 0 });
    const client = await connected(app.url, "POST /v1/completions", [`content-type: ${JSON_TYPE}`], text.length);
    for (const character of text) {
      client.write(character);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const { status, body } = await client.answer<{ choices: { text: string }[] }>();
    const whole = await postCompletion(app, text);
    expect([status, body.choices]).toEqual([200, (await json<{ choices: unknown }>(whole)).choices]);
    client.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    expect((await client.answer()).status).toBe(200);
    client.end();
    await app.stop();
  });

  it.each([
    ["with its length", ["content-length: 40000000"], ""],
    ["in chunks", ["transfer-encoding: chunked"], `${(1 << 20).toString(16)}\r\n`],
  ])("may be only so large, and a client that has sent all of it hears so: %s", async (_, length, chunkHead) => {
    const app = await startApp(MODEL, { maxBodyBytes: 100_000 });
    const client = await connected(app.url, "POST /v1/completions", [`content-type: ${JSON_TYPE}`, ...length]);
    const part = "x".repeat(1 << 20);
    const numParts = Math.floor(40_000_000 / part.length);
    for (let i = 0; i < numParts; i++) await client.writeAll(`${chunkHead}${part}${chunkHead && "\r\n"}`);
    await client.writeAll(chunkHead ? "0\r\n\r\n" : "x".repeat(40_000_000 - numParts * part.length));
    const { status, headers, body } = await client.answer();
    expect([status, body.error]).toMatchObject([413, { code: "body_too_large", param: "body" }]);
    expect(body.error.message).toContain("100000 bytes");
    expect(headers).not.toContain("connection: close");
    client.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    expect((await client.answer()).status).toBe(200);
    client.end();
    await app.stop();
  });
});

describe("a server that is full", () => {
  const app = useApp(MODEL, { slots: 1, maxWaiting: 0 });
  const ROUTES = ["completions", "completions/upload", "chat/completions", "vqa", "score"];

  it("refuses work by its headers, before a body is sent; nothing else, and not for long", async () => {
    const running = await postCompletion(app(), { ...ENDLESS, stream: true });
    const headers = ["content-type: application/json", "expect: 100-continue"];
    const before = await refusals();
    for (const route of ROUTES) {
      const client = await connected(app().url, `POST /v1/${route}`, headers, 1e6);
      // Had the server asked for the body, that would be read as the answer.
      const { status, headers: said, body } = await client.answer();
      expect([route, status, body.error.code]).toEqual([route, 429, "overloaded"]);
      expect(said).toContain("retry-after: 1");
      client.end();
    }
    expect((await refusals()) - before).toBe(ROUTES.length);
    for (const path of ["/v1/models", "/health"]) expect((await fetch(app().url + path)).status).toBe(200);
    expect((await post(app(), "/tokenize", { prompt: "a" })).status).toBe(200);
    await running.body!.cancel();
    await untilIdle(app());
    expect((await postCompletion(app(), { prompt: "a", max_tokens: 1 })).status).toBe(200);
  });

  it("keeps the connection of a client that sends its body all the same", async () => {
    const running = await postCompletion(app(), { ...ENDLESS, stream: true });
    const text = JSON.stringify({ prompt: "x".repeat(500_000) });
    const client = await connected(app().url, "POST /v1/completions", [`content-type: ${JSON_TYPE}`], text.length);
    expect((await client.answer()).status).toBe(429);
    await client.writeAll(text);
    client.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    expect((await client.answer()).status).toBe(200);
    client.end();
    await running.body!.cancel();
    await untilIdle(app());
  });

  const refusals = async (): Promise<number> => {
    const text = await (await fetch(`${app().url}/metrics`)).text();
    return Number(/^mblm_requests_refused_total{[^}]*overloaded[^}]*} (\d+)/m.exec(text)?.[1]);
  };
});

describe("a client that closes its half of the connection", () => {
  it("has gone: what it asked for ends", async () => {
    const app = await startApp(MODEL);
    const text = JSON.stringify({ prompt: "a", max_tokens: 1e6 });
    const client = await connected(app.url, "POST /v1/completions", [`content-type: ${JSON_TYPE}`], text.length);
    client.write(text);
    await expect.poll(async () => (await app.engine.stats()).numRunning).toBe(1);
    client.end();
    await untilIdle(app);
    await app.stop();
  });
});

describe("web pages of other origins", () => {
  const page = "https://app.example";
  const preflight = (url: string, asked = "authorization,content-type"): Promise<Response> =>
    fetch(`${url}/v1/completions`, {
      method: "OPTIONS",
      headers: {
        origin: page,
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
      },
    });
  const listed = (response: Response, header: string): string[] =>
    (response.headers.get(header) ?? "").toLowerCase().split(/ *, */);
  const upgrade = (url: string, origin: string): Promise<string> =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/v1/stream`, "mblm.stream.v1", { origin });
      socket.on("error", (error) => resolve(error.message));
      socket.on("open", () => {
        socket.terminate();
        resolve("open");
      });
    });

  it("may not use a server that does not list them, WebSockets included", async () => {
    const app = await startApp(MODEL);
    expect((await preflight(app.url)).headers.has("access-control-allow-origin")).toBe(false);
    expect(await upgrade(app.url, page)).toContain("403");
    expect(await upgrade(app.url, "null")).toContain("403");
    expect(await upgrade(app.url, app.url)).toBe("open");
    await app.stop();
  });

  it("may use one that does, and ask before they show a key", async () => {
    const app = await startApp(MODEL, { corsOrigins: `${page}, https://other.example`, apiKey: "secret-key" });
    const { status, headers } = await preflight(app.url);
    expect(status).toBe(204);
    expect(headers.get("access-control-allow-origin")).toBe(page);
    expect(headers.get("access-control-allow-headers")).toContain("authorization");
    const refused = await fetch(`${app.url}/v1/models`, { headers: { origin: page } });
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, page]);
    expect(await upgrade(app.url, page)).toContain("401"); // the origin may; a key is missing
    expect(await upgrade(app.url, "https://evil.example")).toContain("403");
    await app.stop();
  });

  it.each(["*", page])(
    "may send all headers that clients send, and read those that they read: %s",
    async (corsOrigins) => {
      const app = await startApp(MODEL, { corsOrigins });
      const sent = new Set<string>();
      const client = new OpenAI({
        baseURL: `${app.url}/v1`,
        apiKey: "k",
        dangerouslyAllowBrowser: true,
        fetch: (url, init) => {
          for (const name of new Headers(init?.headers).keys()) sent.add(name);
          return fetch(url, init);
        },
      });
      await client.completions.create({ model: MODEL, prompt: "a", max_tokens: 1 }, { timeout: 60_000 });
      expect([...sent].filter((name) => name.startsWith("x-stainless-")).length).toBeGreaterThan(3);
      const asked = [...sent, "x-request-timeout-ms", "traceparent", "x-request-id"].sort();
      expect(listed(await preflight(app.url, asked.join(",")), "access-control-allow-headers").sort()).toEqual(asked);
      const refused = await post(app, "/v1/completions", { prompt: 7 }, { headers: { origin: page } });
      const readable = listed(refused, "access-control-expose-headers");
      expect(readable).toEqual(expect.arrayContaining(["x-request-id", "retry-after", "x-should-retry"]));
      await app.stop();
    },
  );

  it("may all use one with *", async () => {
    const app = await startApp(MODEL, { corsOrigins: "*" });
    expect((await preflight(app.url)).headers.get("access-control-allow-origin")).toBe("*");
    expect(await upgrade(app.url, page)).toBe("open");
    await app.stop();
  });
});

describe("an event loop that is late", () => {
  it("refuses work, answers probes, and recovers", async () => {
    const app = await startApp(MODEL, { maxEventLoopDelaySeconds: 0.05 });
    const status = async (): Promise<number> => (await postCompletion(app, { prompt: "a", max_tokens: 1 })).status;
    await expect.poll(status).toBe(200); // the start may have been late itself
    const end = Date.now() + 1500;
    const block = setInterval(() => {
      const until = Date.now() + 150;
      while (Date.now() < until);
    }, 1);
    let refused: Response;
    do refused = await postCompletion(app, { prompt: "a", max_tokens: 1 });
    while (refused.status === 200 && Date.now() < end + 3000);
    expect(refused.status).toBe(429);
    expect(refused.headers.has("retry-after")).toBe(true);
    expect((await fetch(`${app.url}/health`)).status).toBe(200);
    expect((await fetch(`${app.url}/metrics`)).status).toBe(200);
    clearInterval(block);
    await expect.poll(status).toBe(200);
    await app.stop();
  });
});

describe("TLS", () => {
  const folder = scratchFolder("tls");
  const makeCertificate = (name: string): { tlsCert: string; tlsKey: string } => {
    const [tlsCert, tlsKey] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)] as const;
    const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1"];
    const files = ["-keyout", tlsKey, "-out", tlsCert];
    execFileSync("openssl", ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", ...subject, ...files], {
      stdio: "ignore",
    });
    return { tlsCert, tlsKey };
  };

  it("is served with the certificate that is given", async () => {
    const files = makeCertificate("localhost");
    const app = await startApp(MODEL, files);
    const status = await new Promise((resolve, reject) => {
      const options = { ca: readFileSync(files.tlsCert) };
      httpsGet(`${app.url}/health`, options, ({ statusCode }) => resolve(statusCode)).on("error", reject);
    });
    expect(app.url).toMatch(/^https:/);
    expect(status).toBe(200);
    await app.stop();
  });

  it.each([
    [{ tlsCert: "x" }, "tls_key: is needed"],
    [{ tlsKey: "x" }, "tls_cert: is needed"],
    [{ tlsCert: "/nowhere", tlsKey: "/nowhere" }, "tls_cert: cannot read"],
  ])("is refused at the start with %j", async (settings, problem) => {
    await expect(startApp(MODEL, settings)).rejects.toThrow(problem);
  });
});

describe("probes", () => {
  it("tell starting, ready and draining apart", async () => {
    const config = { ...loadConfig({ environment: {} }), model: bundleDir(MODEL), logLevel: "silent" as const };
    const started = await startApp(MODEL);
    const engine = started.engine;
    const app = await buildApp(config, async () => engine, "0");
    const url = await app.server.listen({ port: 0 });
    const probe = async (): Promise<number[]> =>
      Promise.all(["startup", "ready", "live"].map(async (name) => (await fetch(`${url}/health/${name}`)).status));
    expect(await probe()).toEqual([503, 503, 200]);
    expect(await json(await fetch(`${url}/health`))).toEqual({ status: "starting" });
    await app.models.load();
    expect(await probe()).toEqual([200, 200, 200]);
    await app.lifecycle.drain(0);
    expect(await probe()).toEqual([200, 503, 200]);
    expect(await json(await fetch(`${url}/health/ready`))).toEqual({ status: "draining" });
    await app.server.close();
    await started.stop();
  });
});
