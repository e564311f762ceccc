import { describe, expect, it } from "vitest";
import { post } from "./api.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");
const get = async (path: string): Promise<{ status: number; body: unknown }> => {
  const response = await fetch(`${app().url}${path}`);
  return { status: response.status, body: await response.json() };
};

describe("what the server says of itself", () => {
  it("models, version and health", async () => {
    const list = await get("/v1/models");
    const one = await get("/v1/models/mamba2-transformer");
    expect(list.body).toEqual({ object: "list", data: [one.body] });
    expect(one.body).toMatchObject({ object: "model", vocabulary_size: 256, max_model_len: null, precision: "fp32" });
    expect((await get("/v1/models/other")).status).toBe(404);
    expect(await get("/version")).toEqual({ status: 200, body: { version: "0.0.0-test" } });
    expect(await get("/health")).toEqual({ status: 200, body: { status: "ready" } });
  });

  it("the Open Inference Protocol's health and metadata", async () => {
    expect(await get("/v2")).toEqual({
      status: 200,
      body: { name: "mblm-server", version: "0.0.0-test", extensions: [] },
    });
    expect(await get("/v2/health/live")).toEqual({ status: 200, body: { live: true } });
    expect(await get("/v2/health/ready")).toEqual({ status: 200, body: { ready: true } });
    expect(await get("/v2/models/mamba2-transformer/ready")).toEqual({ status: 200, body: { ready: true } });
    expect((await get("/v2/models/mamba2-transformer")).body).toMatchObject({
      name: "mamba2-transformer",
      platform: "onnxruntime_onnx",
      inputs: [{ datatype: "BYTES" }],
    });
    expect((await get("/v2/models/other")).status).toBe(404);
    expect((await get("/v2/models/other/ready")).status).toBe(404);
  });

  it("load counts open requests", async () => {
    expect((await get("/load")).body).toEqual({ server_load: 0 });
    const controller = new AbortController();
    const open = [0, 1].map(() =>
      post(app(), "/v1/completions", { prompt: "a", max_tokens: 1e6, stream: true }, { signal: controller.signal }),
    );
    await Promise.all(open);
    expect((await get("/load")).body).toEqual({ server_load: 2 });
    controller.abort();
    await expect.poll(async () => (await get("/load")).body).toEqual({ server_load: 0 });
  });

  it("the contract it serves is the one in the repository", async () => {
    const { body } = await get("/openapi.json");
    expect(body).toMatchObject({ openapi: "3.1.0" });
    expect(Object.keys((body as { paths: object }).paths)).toContain("/v1/completions");
  });
});

describe("a server that drains", () => {
  const draining = useApp("mamba2-transformer");
  it("is alive and not ready", async () => {
    await draining().lifecycle.drain(0);
    for (const [path, status] of [
      ["/health", 503],
      ["/v2/health/live", 200],
      ["/v2/health/ready", 503],
      ["/v2/models/mamba2-transformer/ready", 503],
    ] as const) {
      expect((await fetch(`${draining().url}${path}`)).status).toBe(status);
    }
    expect(
      (await post(draining(), "/v1/chat/completions", { messages: [{ role: "user", content: "a" }] })).status,
    ).toBe(503);
    expect((await fetch(`${draining().url}/v1/score`, { method: "POST", body: "a" })).status).toBe(503);
  });
});
