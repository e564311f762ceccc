import { expect, it } from "vitest";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");

const HEAD = `# Metrics

\`GET /metrics\`. Times are seconds, sizes bytes; \`model\` is a model's name. With \`--vllm-metrics true\` the same numbers follow under vLLM's
names (\`vllm:num_requests_running\`, \`vllm:time_to_first_token_seconds\` and so on, \`model\` as \`model_name\`), for dashboards and gateways
that know those. With API keys, scraping needs the scope \`metrics\`.

- \`deploy/grafana\`: a dashboard and what provisions it; \`docker compose -f deploy/docker-compose.yaml up --build\` shows it on port 3000.
- \`deploy/prometheus/alerts.yaml\`: alert rules; \`alerts.test.yaml\` says when each fires (\`promtool test rules\`).

| promise | test |
|---|---|
| counters are what clients count, exactly; the sum over reasons is the number of accepted sequences; first bytes are as many as sequences with a byte; durations are what clients see | \`test/http/metric-truth.test.ts\` |
| names and help texts pass promtool; alerts fire when they should and not before | \`test/python/test_observability.py\` |
| every panel of the dashboard shows data that a real Prometheus scraped from a real server under load | \`test/python/test_observability.py\` |
| this page has every metric | \`test/http/metrics-page.test.ts\` |

| metric | type | labels | meaning |
|---|---|---|---|
`;

it("docs/metrics.md has every metric (npm run openapi writes it anew)", async () => {
  const text = await (await fetch(`${app().url}/metrics`)).text();
  const rows = [...text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$/gm)].map(([, name, help, type]) => {
    const sample = new RegExp(`^${name}(?:_bucket)?{(.*)}`, "m").exec(text)?.[1] ?? "";
    const labels = [...sample.matchAll(/(\w+)="/g)].map(([, label]) => label).filter((label) => label !== "le");
    return `| \`${name}\` | ${type} | ${labels.join(", ")} | ${help} |\n`;
  });
  expect(rows.length).toBeGreaterThan(45);
  await expect(HEAD + rows.join("")).toMatchFileSnapshot("../../docs/metrics.md");
});
