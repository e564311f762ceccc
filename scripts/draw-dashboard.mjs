// Draws deploy/grafana's dashboard without Grafana: a server under a small load, a real Prometheus that scrapes it, the
// panels' own expressions, and the components that Grafana's panels are made of. Writes docs/dashboard.png.
// Needs `prometheus` and Chromium on the PATH; @grafana/ui (400 MB with what it needs) is installed for itself, below
// node_modules/.cache.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { build as bundle } from "esbuild";
import { chromium } from "playwright-core";
import sharp from "sharp";
import { build, requireNode, root, run } from "./setup.mjs";

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "150" },
    model: { type: "string", default: "models/books" },
    out: { type: "string", default: "docs/dashboard.png" },
    again: { type: "boolean", default: false },
    help: { type: "boolean" },
  },
});
if (options.help) {
  console.log(`node scripts/draw-dashboard.mjs [--seconds 150] [--model DIR] [--out docs/dashboard.png]
    --again: no new load; the last run's answers are drawn again`);
  process.exit(0);
}
const SCRAPE_SECONDS = 2;
/** What Grafana makes of `$__rate_interval`; for so long the load runs before the first point. */
const RATE_SECONDS = 4 * SCRAPE_SECONDS;
const PACKAGES = [
  "@grafana/data@13.2.3",
  "@grafana/schema@13.2.3",
  "@grafana/ui@13.2.3",
  "@fontsource/inter@5.3.0",
  "react@19.3.1",
  "react-dom@19.3.1",
];
const cache = join(root, "node_modules", ".cache", "draw-dashboard");
const dashboard = JSON.parse(readFileSync(join(root, "deploy/grafana/dashboards/mblm-server.json"), "utf8"));
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const now = () => Date.now() / 1000;
const fail = (message) => {
  throw new Error(message);
};

function find(...names) {
  const paths = names.map((name) => spawnSync("which", [name]).stdout.toString().trim());
  return paths.find((path) => path !== "") ?? fail(`none of these is installed: ${names.join(", ")}`);
}

function installComponents() {
  const stamp = join(cache, "installed");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === PACKAGES.join()) return;
  mkdirSync(cache, { recursive: true });
  writeFileSync(join(cache, "package.json"), '{ "private": true }\n');
  const flags = ["--ignore-scripts", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund"];
  run("npm", "install", "--prefix", cache, ...flags, ...PACKAGES);
  writeFileSync(stamp, PACKAGES.join());
}

async function bundledPage() {
  const { outputFiles } = await bundle({
    stdin: {
      contents: readFileSync(join(root, "scripts/draw-dashboard/page.jsx"), "utf8"),
      loader: "jsx",
      resolveDir: cache,
    },
    bundle: true,
    write: false,
    outdir: cache,
    format: "iife",
    minify: true,
    jsx: "automatic",
    loader: { ".ttf": "empty" },
    define: { "process.env.NODE_ENV": '"production"', global: "window" },
    logLevel: "error",
  });
  const [script, style] = [".js", ".css"].map((end) => outputFiles.find(({ path }) => path.endsWith(end)).text);
  return { script, style };
}

const children = [];
function start(command, ...args) {
  const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  return child;
}

function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return undefined;
  child.kill("SIGTERM");
  return once(child, "exit");
}

async function serve() {
  const flags = ["--port", "0", "--model", options.model, "--slots", "8", "--max-waiting", "6", "--log-level", "error"];
  const child = start(process.execPath, "dist/cli/main.js", "serve", ...flags);
  child.stderr.pipe(process.stderr);
  return new Promise((resolve, reject) => {
    child.once("exit", () => reject(new Error("the server ended")));
    child.stdout.on("data", (text) => {
      const match = /listening on (http:\S+)/.exec(text);
      if (match) resolve(match[1]);
    });
  });
}

async function startPrometheus(folder, target) {
  const port = await new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
  const scrape = `{ job_name: mblm-server, scrape_interval: ${SCRAPE_SECONDS}s, static_configs: [{ targets: ["${target}"] }] }`;
  writeFileSync(join(folder, "prometheus.yaml"), `scrape_configs: [${scrape}]\n`);
  const files = [`--config.file=${folder}/prometheus.yaml`, `--storage.tsdb.path=${folder}/data`];
  start(find("prometheus"), ...files, `--web.listen-address=127.0.0.1:${port}`).stderr.resume();
  const url = `http://127.0.0.1:${port}`;
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await fetch(`${url}/-/ready`).catch(() => undefined))?.ok) return url;
    await sleep(0.2);
  }
  return fail("Prometheus does not start");
}

/** Readers who come and go, a rush that is more than the server takes, conversations, something to score. */
async function load(url, begin, end) {
  let seed = 1;
  const random = () => {
    seed = (seed * 48271) % 2147483647;
    return seed / 2147483647;
  };
  const openings = [
    "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. ",
    "The old man sat by the fire and told the children of the years that he had spent at sea. ",
    "There was no possibility of taking a walk that day. We had been wandering in the garden. ",
  ];
  const post = async (path, body, signal) => {
    const isJson = !(body instanceof Uint8Array);
    const headers = isJson ? { "content-type": "application/json" } : {};
    const init = { method: "POST", headers, body: isJson ? JSON.stringify(body) : body, signal };
    const response = await fetch(url + path, init);
    await response.arrayBuffer();
    return response.status;
  };
  const at = (part) => begin + part * (end - begin);
  const reader = async (from, to) => {
    await sleep(Math.max(0, at(from) - now()) + random() * 3);
    while (now() < at(to) + 1) {
      const prompt = openings[Math.floor(random() * openings.length)] + "And then ".repeat(Math.floor(random() * 12));
      const body = { prompt, max_tokens: 20 + Math.floor(random() * 120), temperature: 0.8, stream: true };
      if (random() < 0.4) body.stop = [".", "!"];
      if (random() < 0.02) body.temperature = 9;
      const signal = random() < 0.1 ? AbortSignal.timeout(500) : undefined;
      const status = await post("/v1/completions", body, signal).catch(() => 0);
      await sleep(status === 429 ? 0.7 : random() * 1.5);
    }
  };
  const scorer = async () => {
    for (; now() < end + 1; await sleep(4 + random() * 8)) {
      await post("/v1/score", new TextEncoder().encode(openings[0].repeat(2 + Math.floor(random() * 12))));
    }
  };
  const teller = async () => {
    for (let number = 0; now() < end + 1; number++) {
      await post("/v1/sessions", { id: `tale-${number}` });
      await post("/v1/completions", { session_id: `tale-${number}`, prompt: openings[1], max_tokens: 40 });
      if (number >= 8 && number % 2 === 0) await fetch(`${url}/v1/sessions/tale-${number - 8}`, { method: "DELETE" });
      await sleep(1 + random() * 4);
    }
  };
  const readers = [
    ...Array.from({ length: 4 }, () => reader(-1, 1)),
    ...Array.from({ length: 5 }, () => reader(0.2, 0.7)),
    ...Array.from({ length: 9 }, () => reader(0.4, 0.6)),
  ];
  await Promise.all([...readers, scorer(), teller()]);
}

async function ask(prometheus, path, parameters) {
  const response = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = await response.json();
  if (answer.status !== "success") fail(`Prometheus refuses ${JSON.stringify(parameters)}: ${answer.error}`);
  return answer.data;
}

/** The dashboard's variables at their defaults; each must have something to choose. */
async function variablesOf(prometheus) {
  const found = [];
  for (const variable of dashboard.templating.list) {
    if (variable.type === "datasource") continue;
    const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(variable.query.query);
    const choices = await ask(prometheus, `label/${label}/values`, { "match[]": metric });
    if (choices.length === 0) fail(`the variable ${variable.name} has nothing to choose`);
    found.push({ name: variable.name, label: variable.label, value: variable.allValue, text: variable.current.text });
  }
  return found;
}

/** By panel: the series that its expressions give. */
async function answersOf(prometheus, variables, from, to) {
  const substitute = (expression) =>
    variables.reduce(
      (text, { name, value }) => text.replaceAll(`$${name}`, value),
      expression.replaceAll("$__rate_interval", `${RATE_SECONDS}s`),
    );
  const answers = {};
  for (const panel of dashboard.panels.filter(({ type }) => type !== "row")) {
    answers[panel.id] = [];
    for (const { refId, expr, legendFormat } of panel.targets) {
      const range = { start: from, end: to, step: SCRAPE_SECONDS };
      const { result } = await ask(prometheus, "query_range", { query: substitute(expr), ...range });
      for (const { metric, values } of result) {
        const numbers = values.map(([, value]) => (Number.isFinite(Number(value)) ? Number(value) : null));
        if (numbers.every((value) => value === null)) continue;
        answers[panel.id].push({
          refId,
          legend: legendFormat.replaceAll(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? ""),
          labels: metric,
          times: values.map(([time]) => time * 1000),
          values: numbers,
        });
      }
    }
  }
  return answers;
}

/** Icons and fonts, which Grafana's components fetch from where Grafana would serve them. */
function fileOf(pathname) {
  const packages = join(cache, "node_modules");
  const font = /^\/public\/fonts\/inter\/Inter-(Regular|Medium)\.woff2$/.exec(pathname);
  if (font) {
    const weight = { Regular: 400, Medium: 500 }[font[1]];
    return join(packages, `@fontsource/inter/files/inter-latin-${weight}-normal.woff2`);
  }
  const icon = /^\/public\/build\/(img\/icons\/.+\.svg)$/.exec(pathname);
  return icon ? join(packages, "@grafana/ui/dist/public", icon[1]) : undefined;
}

async function screenshot(drawing, { script, style }) {
  const browser = await chromium.launch({
    executablePath: find("chromium", "chromium-browser", "google-chrome"),
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
  });
  try {
    const page = await browser.newPage({ viewport: { width: drawing.width, height: 1000 }, deviceScaleFactor: 1.5 });
    const errors = [];
    page.on("pageerror", (error) => errors.push(error));
    await page.route("http://dashboard.localhost/**", (route) => {
      const { pathname } = new URL(route.request().url());
      if (pathname === "/") {
        return route.fulfill({ contentType: "text/html", body: '<!doctype html><body><div id="page"></div></body>' });
      }
      const path = fileOf(pathname);
      if (path !== undefined && existsSync(path)) return route.fulfill({ path });
      errors.push(new Error(`the page asks for ${pathname}, which there is not`));
      return route.abort();
    });
    await page.goto("http://dashboard.localhost/");
    await page.addStyleTag({ content: style });
    await page.evaluate((given) => {
      window.drawing = given;
    }, drawing);
    await page.addScriptTag({ content: script });
    await page.waitForSelector("main", { timeout: 30_000 });
    await page.evaluate(() => document.fonts.ready);
    await sleep(2);
    if (errors.length > 0) throw errors[0];
    return await page.screenshot({ fullPage: true });
  } finally {
    await browser.close();
  }
}

/** What the page draws, from a server under load for so many seconds. */
async function measure(seconds) {
  const folder = mkdtempSync(join(tmpdir(), "mblm-dashboard-"));
  try {
    const url = await serve();
    const prometheus = await startPrometheus(folder, new URL(url).host);
    await sleep(2 * SCRAPE_SECONDS);
    // The window ends between two labels of the time axis, before the load does.
    const to = Math.ceil((now() + RATE_SECONDS + seconds) / 30) * 30 + 15;
    console.log(`load for ${Math.round(to - now())} s`);
    const loaded = load(url, to - seconds, to);
    await sleep(to - now());
    const variables = await variablesOf(prometheus);
    const answers = await answersOf(prometheus, variables, to - seconds, to);
    await loaded;
    const isAbsent = ({ id, title }) => answers[id]?.length === 0 && !title.includes("GPU");
    const absent = dashboard.panels.filter(isAbsent).map(({ title }) => title);
    if (absent.length > 0) fail(`panels without data: ${absent.join(", ")}`);
    return { answers, variables, from: (to - seconds) * 1000, to: to * 1000, step: SCRAPE_SECONDS };
  } finally {
    await Promise.all(children.map(stop));
    rmSync(folder, { recursive: true, force: true });
  }
}

requireNode();
installComponents();
const page = await bundledPage();
const answersFile = join(cache, "answers.json");
if (!options.again) {
  await build();
  writeFileSync(answersFile, JSON.stringify(await measure(Number(options.seconds))));
}
const drawing = { ...JSON.parse(readFileSync(answersFile, "utf8")), dashboard, width: 1400 };
const image = await screenshot(drawing, page);
const small = await sharp(image).png({ palette: true, colours: 128, dither: 0, effort: 10 }).toBuffer();
writeFileSync(join(root, options.out), small);
console.log(`${options.out}: ${Math.round(small.length / 1024)} KiB`);
