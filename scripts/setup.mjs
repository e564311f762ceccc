// Makes a clone ready: npm packages, the build, a Python environment. Plain Node, no packages needed.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
const inRoot = (...parts) => join(root, ...parts);

/** Runs a command in the project's folder; its output is shown. Exits with its status on failure. */
export function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) fail(`cannot run ${command}: ${error.message}`);
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
export function installPackages() {
  const done = existsSync(inRoot("node_modules"))
    ? changedSince("node_modules/.mblm-lock", ["package-lock.json"])
    : () => {};
  if (!done) return;
  console.log("installing npm packages");
  run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error");
  changedSince("node_modules/.mblm-lock", ["package-lock.json"])?.();
}

/** Compiles src/ to dist/ when a source is newer. */
export function build() {
  const newest = (path) => {
    const info = statSync(path);
    return info.isDirectory() ? Math.max(...readdirSync(path).map((name) => newest(join(path, name)))) : info.mtimeMs;
  };
  const target = inRoot("dist", "cli", "main.js");
  if (existsSync(target) && statSync(target).mtimeMs > newest(inRoot("src"))) return;
  console.log("building");
  run(process.execPath, inRoot("node_modules", "tsup", "dist", "cli-default.js"), "--silent");
}

/** Path of the project's Python, in a virtual environment made from `scripts/requirements-test.txt`. */
export function installPython() {
  const python = inRoot(".venv", "bin", "python");
  if (!existsSync(python)) {
    console.log("making the Python environment .venv");
    run(findPython(), "-m", "venv", inRoot(".venv"));
  }
  const files = ["requirements", "requirements-test", "requirements-cuda-build"].map((name) => `scripts/${name}.txt`);
  const done = changedSince(".venv/.mblm-requirements", files);
  if (done) {
    console.log("installing Python packages (a few minutes the first time)");
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "scripts/requirements-test.txt");
    done();
  }
  return python;
}

function findPython() {
  for (const name of [process.env.PYTHON, "python3", "python"].filter(Boolean)) {
    try {
      const version = execFileSync(name, ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"], {
        encoding: "utf8",
      });
      const [major, minor] = version.trim().split(".").map(Number);
      if (major === 3 && minor >= 10) return name;
    } catch {
      // Not there: try the next name.
    }
  }
  return fail("Python 3.10 or newer is needed for the Python tests (set PYTHON to its path)");
}
