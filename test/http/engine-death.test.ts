import { afterAll, beforeAll, expect, it } from "vitest";
import { startEngine } from "../../src/worker/engine-client.js";
import { SupervisedEngine } from "../../src/worker/supervised-engine.js";
import { compileThread } from "../worker/compiled-thread.js";
import { complete, json, post } from "./api.js";
import { startApp, type TestApp } from "./test-app.js";

let app: TestApp;
beforeAll(async () => {
  process.env.REAL_ENGINE_THREAD = (await compileThread()).href;
  const threadUrl = new URL("../worker/threads/can-be-killed.mjs", import.meta.url);
  app = await startApp("mamba2-transformer", {}, (options) =>
    SupervisedEngine.start(() => startEngine({ ...options, threadUrl })),
  );
});
afterAll(() => app.stop());

it("ends open requests cleanly, readiness flips, and everything is back", async () => {
  const body = { prompt: "x", max_tokens: 1_000_000, stream: true };
  const before = await complete(app, { prompt: "same", max_tokens: 20, temperature: 0 });
  await post(app, "/v1/sessions", { id: "kept" });
  await complete(app, { prompt: "same", max_tokens: 9, temperature: 0, session_id: "kept" });

  const streams = await Promise.all([1, 2, 3].map(() => post(app, "/v1/completions", body)));
  const waiting = Array.from({ length: 4 }, () => post(app, "/v1/completions", { ...body, stream: false }));
  expect(streams.map(({ status }) => status)).toEqual([200, 200, 200]);
  const killer = post(app, "/v1/completions", { ...body, stream: false, request_id: "kill" });
  for (const stream of streams) {
    const lines = (await stream.text()).trim().split("\n\n");
    expect(lines.at(-1)).toBe("data: [DONE]");
    expect(JSON.parse(lines.at(-2)!.slice(6))).toMatchObject({
      error: { code: "engine_failed", type: "server_error" },
    });
  }
  for (const answer of await Promise.all([killer, ...waiting])) {
    expect(answer.status).toBe(500);
    expect(await json(answer)).toMatchObject({ error: { code: "engine_failed" } });
  }
  const refused = await post(app, "/v1/completions", { prompt: "x" });
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(await json(refused)).toMatchObject({ error: { code: "engine_restarting" } });
  const health = await fetch(`${app.url}/health`);
  expect(health.status).toBe(503);
  expect(await health.json()).toEqual({ status: "restarting" });
  expect((await fetch(`${app.url}/v2/health/ready`)).status).toBe(503);
  expect((await fetch(`${app.url}/v2/health/live`)).status).toBe(200);
  expect((await fetch(`${app.url}/metrics`)).status).toBe(200);

  await expect.poll(async () => (await fetch(`${app.url}/health`)).status).toBe(200);
  const after = await complete(app, { prompt: "same", max_tokens: 20, temperature: 0 });
  expect(after.choices[0]!.text).toBe(before.choices[0]!.text);
  const rest = await complete(app, { max_tokens: 11, temperature: 0, session_id: "kept", return_token_ids: true });
  const whole = await complete(app, { prompt: "same", max_tokens: 20, temperature: 0, return_token_ids: true });
  expect(rest.choices[0]!.token_ids).toEqual(whole.choices[0]!.token_ids!.slice(9));
});
