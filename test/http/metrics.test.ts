import { describe, expect, it } from "vitest";
import { postCompletion, type TestApp, untilIdle, useApp } from "./test-app.js";

const app = useApp("mamba2-transformer", { slots: 1, maxWaiting: 1 });

async function scrape(target: TestApp): Promise<Map<string, number>> {
  const response = await fetch(`${target.url}/metrics`);
  expect(response.headers.get("content-type")).toContain("text/plain");
  const lines = (await response.text()).split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

/** Sum over the finish reasons. */
const ended = (metrics: Map<string, number>): number =>
  [...metrics].filter(([name]) => name.startsWith("mblm_requests_total{")).reduce((sum, [, value]) => sum + value, 0);

describe("GET /metrics", () => {
  it("counts what happened, and every accepted sequence exactly once", async () => {
    const before = await scrape(app());
    expect(before.get('mblm_requests_total{model="mamba2-transformer",finish_reason="length"}')).toBe(0);
    expect(before.get('mblm_requests_refused_total{code="overloaded"}')).toBe(0);
    expect(before.get('mblm_slots{model="mamba2-transformer"}')).toBe(1);
    expect(before.get('mblm_state_bytes{model="mamba2-transformer"}')).toBeGreaterThan(1000);

    await (await postCompletion(app(), { prompt: "abc", max_tokens: 10, n: 2, seed: 1 })).json();
    await (await postCompletion(app(), { prompt: "abc", max_tokens: 0 })).json();
    await postCompletion(app(), { prompt: "abc", temperature: 9 });
    await postCompletion(app(), "not json");

    const controller = new AbortController();
    const running = postCompletion(
      app(),
      { prompt: "a", max_tokens: 1e6, stream: true },
      { signal: controller.signal },
    );
    await expect
      .poll(async () => (await scrape(app())).get('mblm_requests_running{model="mamba2-transformer"}'), {})
      .toBe(1);
    const waiting = postCompletion(app(), { prompt: "b", max_tokens: 1 }).then((r) => r.json());
    await expect
      .poll(async () => (await scrape(app())).get('mblm_requests_waiting{model="mamba2-transformer"}'), {})
      .toBe(1);
    expect((await postCompletion(app(), { prompt: "c" })).status).toBe(429);
    controller.abort();
    await running.then((r) => r.text()).catch(() => {});
    await waiting;
    await untilIdle(app());

    const after = await scrape(app());
    expect(after.get('mblm_requests_total{model="mamba2-transformer",finish_reason="length"}')).toBe(4);
    expect(after.get('mblm_requests_total{model="mamba2-transformer",finish_reason="abort"}')).toBe(1);
    expect(ended(after)).toBe(5);
    expect(after.get('mblm_requests_refused_total{code="invalid_request"}')).toBe(2);
    expect(after.get('mblm_requests_refused_total{code="overloaded"}')).toBe(1);
    expect(after.get('mblm_time_to_first_byte_seconds_count{model="mamba2-transformer"}')).toBe(4); // all that produced a byte
    expect(after.get('mblm_request_duration_seconds_count{model="mamba2-transformer"}')).toBe(5);
    expect(after.get('mblm_generated_bytes_total{model="mamba2-transformer"}')).toBeGreaterThanOrEqual(21);
    expect(after.get('mblm_prompt_bytes_total{model="mamba2-transformer"}')).toBeGreaterThanOrEqual(3 * 3 + 1);
    expect(after.get('mblm_requests_running{model="mamba2-transformer"}')).toBe(0);
  });

  it("names are lint-clean: snake case, base units, counters end in _total", async () => {
    const text = await (await fetch(`${app().url}/metrics`)).text();
    for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
      expect(name!.endsWith("_total")).toBe(type === "counter");
      if (type === "histogram") expect(name).toMatch(/_(seconds|sequences)$/);
      expect(text).toContain(`# HELP ${name} `);
    }
  });
});
