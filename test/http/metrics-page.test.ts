import { afterAll, beforeAll, expect, it } from "vitest";
import type { DeviceStats } from "../../src/core/engine-stats.js";
import type { EngineClient, EngineOptions } from "../../src/worker/engine-client-interface.js";
import { startInlineEngine } from "../../src/worker/inline-engine.js";
import { startApp, type TestApp } from "./test-app.js";

/** So that metrics of devices have values, and with them labels. */
const DEVICE: DeviceStats = {
  name: "GPU",
  memory: { freeBytes: 1, totalBytes: 2 },
  bytes: { weights: 1 },
  numGraphs: 1,
  recordingSeconds: 1,
  fusedRows: [1],
};

async function startOnDevice(options: EngineOptions): Promise<EngineClient> {
  const engine = await startInlineEngine(options);
  const stats = engine.stats.bind(engine);
  return Object.assign(engine, { stats: async () => ({ ...(await stats()), device: DEVICE }) });
}

let app: TestApp;
beforeAll(async () => {
  app = await startApp("mamba2-transformer", {}, startOnDevice);
});
afterAll(() => app.stop());

const HEAD = `# Metrics

\`GET /metrics\`. Times are seconds, sizes bytes; \`model\` is a model's name. With \`--vllm-metrics true\` the same numbers follow under vLLM's
names (\`vllm:num_requests_running\`, \`vllm:time_to_first_token_seconds\` and so on, \`model\` as \`model_name\`), for dashboards and gateways
that know those. With API keys, scraping needs the scope \`metrics\`.

- \`deploy/grafana\`: a dashboard and what provisions it; \`docker compose -f deploy/docker-compose.yaml up --build\` shows it on port 3000.
- \`deploy/prometheus/alerts.yaml\`: alert rules; \`alerts.test.yaml\` says when each fires (\`promtool test rules\`).

| promise | test |
|---|---|
| counters are what clients count, exactly; refusals are counted whatever was asked and however; what ran out of time is no failure; the sum over reasons is the number of accepted sequences; first bytes are as many as sequences with a byte; durations are what clients see | \`test/http/metric-truth.test.ts\` |
| names and help texts pass promtool; alerts fire when they should and not before | \`test/python/test_observability.py\` |
| every panel of the dashboard shows data that a real Prometheus scraped from a real server under load | \`test/python/test_observability.py\` |
| this page has every metric | \`test/http/metrics-page.test.ts\` |

| metric | type | labels | meaning |
|---|---|---|---|
`;

it("docs/metrics.md has every metric (npm run openapi writes it anew)", async () => {
  const text = await (await fetch(`${app.url}/metrics`)).text();
  const rows = [...text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$/gm)].map(([, name, help, type]) => {
    const sample = new RegExp(`^${name}(?:_bucket)?{(.*)}`, "m").exec(text)?.[1] ?? "";
    const labels = [...sample.matchAll(/(\w+)="/g)].map(([, label]) => label).filter((label) => label !== "le");
    return `| \`${name}\` | ${type} | ${labels.join(", ")} | ${help} |\n`;
  });
  expect(rows.length).toBeGreaterThan(45);
  await expect(HEAD + rows.join("")).toMatchFileSnapshot("../../docs/metrics.md");
});
