// Makes a clone ready: npm packages, the build, a Python environment. Plain Node, no packages needed.
//
//   node scripts/setup.mjs          all of it, as far as it is missing or out of date
//   node scripts/setup.mjs build    dist/ alone
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
const inRoot = (...parts) => join(root, ...parts);

/** Runs a command in the project's folder; its output is shown. Exits with its status on failure. */
export function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) fail(`cannot run ${command}: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

/** As `run`, without blocking: others may work meanwhile. */
async function runBeside(command, args, env = {}) {
  const child = spawn(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } });
  const status = await new Promise((resolve) => {
    child.once("error", (error) => fail(`cannot run ${command}: ${error.message}`));
    child.once("exit", resolve);
  });
  if (status !== 0) process.exit(status ?? 1);
}

export function fail(message) {
  console.error(`mblm-server: ${message}`);
  process.exit(2);
}

/** Whether files changed since `stamp` was written for them; call the returned function once they are dealt with. */
function changedSince(stamp, files) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(readFileSync(inRoot(file)));
  const digest = hash.digest("hex");
  const path = inRoot(stamp);
  if (existsSync(path) && readFileSync(path, "utf8") === digest) return undefined;
  return () => writeFileSync(path, digest);
}

export function requireNode() {
  const [major] = process.versions.node.split(".");
  if (Number(major) < 20) fail(`Node ${process.versions.node} is too old; Node 20 or newer is needed`);
}

/** `npm ci` when the lock file is not what node_modules holds. */
export async function installPackages() {
  const done = existsSync(inRoot("node_modules"))
    ? changedSince("node_modules/.mblm-lock", ["package-lock.json"])
    : () => {};
  if (!done) return;
  console.log("installing npm packages");
  await runBeside("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  changedSince("node_modules/.mblm-lock", ["package-lock.json"])?.();
}

/** Compiles src/ to dist/ when a source is newer. What is there is whole at any time, for programs that run meanwhile. */
export async function build() {
  const newest = (path) => {
    const info = statSync(path);
    return info.isDirectory() ? Math.max(...readdirSync(path).map((name) => newest(join(path, name)))) : info.mtimeMs;
  };
  const sources = Math.max(newest(inRoot("src")), newest(inRoot("tsup.config.ts")));
  const targets = [inRoot("dist", "cli", "main.js"), inRoot("dist", "client", "index.d.ts")];
  if (targets.every((path) => existsSync(path) && statSync(path).mtimeMs > sources)) return;
  console.log("building");
  const made = `dist-${process.pid}`;
  process.once("exit", () => rmSync(inRoot(made), { recursive: true, force: true }));
  const tsup = inRoot("node_modules", "tsup", "dist", "cli-default.js");
  await runBeside(process.execPath, [tsup, "--silent", "--out-dir", made]);
  rmSync(inRoot("dist"), { recursive: true, force: true });
  renameSync(inRoot(made), inRoot("dist"));
}

/** Path of the project's Python, in a virtual environment made from `scripts/requirements-test.txt`. */
export async function installPython() {
  const python = inRoot(".venv", "bin", "python");
  if (existsSync(python)) {
    const version = versionOf(python);
    if (!isNewEnough(version))
      fail(`.venv has Python ${version}, ${NEEDED_PYTHON.join(".")} or newer is needed: remove .venv`);
  } else {
    console.log("making the Python environment .venv");
    await runBeside(findPython(), ["-m", "venv", inRoot(".venv")]);
  }
  const files = ["requirements", "requirements-test", "requirements-cuda-build"].map((name) => `scripts/${name}.txt`);
  const done = changedSince(".venv/.mblm-requirements", files);
  if (done) {
    console.log("installing Python packages (minutes the first time)");
    await installRequirements(python, "scripts/requirements-test.txt");
    done();
  }
  return python;
}

/** Several times faster than pip, which resolves for minutes; where uv has no wheel, pip does it. */
const UV = "uv==0.13.9";

async function installRequirements(python, requirements) {
  const pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"];
  const { status } = spawnSync(python, [...pip, "--only-binary", ":all:", UV], { cwd: root, stdio: "ignore" });
  if (status !== 0) return await runBeside(python, [...pip, "--no-compile", "-r", requirements]);
  const install = ["-m", "uv", "pip", "install", "--quiet", "--python", python, "-r", requirements];
  await runBeside(python, install, settingsOfPip(python));
}

/** Where pip is told to look for packages, in uv's words: uv reads neither pip's files nor its variables. */
function settingsOfPip(python) {
  const names = {
    "index-url": ["UV_DEFAULT_INDEX", " "],
    "extra-index-url": ["UV_INDEX", " "],
    "find-links": ["UV_FIND_LINKS", ","],
    constraint: ["UV_CONSTRAINT", " "],
    cert: ["SSL_CERT_FILE", " "],
  };
  // As pip does: all indexes are asked, and the newest version is taken, wherever it is.
  const settings = { UV_INDEX_STRATEGY: "unsafe-best-match" };
  const lines = execFileSync(python, ["-m", "pip", "config", "list"], { encoding: "utf8" }).split("\n");
  // The environment is listed first and counts most.
  for (const line of lines.reverse()) {
    const [, name, value] = /^(?:global|install|:env:)\.([a-z-]+)='(.*)'$/.exec(line) ?? [];
    if (!Object.hasOwn(names, name ?? "")) continue;
    const [variable, separator] = names[name];
    settings[variable] = value
      .split(/(?:\\n|\s)+/)
      .filter(Boolean)
      .join(separator);
  }
  // What is said to uv itself counts.
  for (const name of Object.keys(settings)) settings[name] = process.env[name] ?? settings[name];
  return settings;
}

/** What the reference package needs, which the tests compare with. */
const NEEDED_PYTHON = [3, 11];

const versionOf = (python) =>
  execFileSync(python, ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"], { encoding: "utf8" }).trim();

function isNewEnough(version) {
  const [major, minor] = version.split(".").map(Number);
  return major === NEEDED_PYTHON[0] && minor >= NEEDED_PYTHON[1];
}

/** The first Python that is new enough. */
export function findPython() {
  for (const name of [process.env.PYTHON, "python3", "python"].filter(Boolean)) {
    try {
      if (isNewEnough(versionOf(name))) return name;
    } catch {
      // Not there: try the next name.
    }
  }
  return fail(`Python ${NEEDED_PYTHON.join(".")} or newer is needed for the Python tests (set PYTHON to its path)`);
}

/** Everything, side by side; returns the path of Python. */
export async function installAll() {
  requireNode();
  const [python] = await Promise.all([installPython(), installPackages().then(build)]);
  return python;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [what, ...rest] = process.argv.slice(2);
  if (rest.length > 0 || (what !== undefined && what !== "build")) fail("usage: node scripts/setup.mjs [build]");
  await (what === "build" ? build() : installAll());
}
