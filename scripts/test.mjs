// `npm test`: every check and test, TypeScript and Python. --ts-only and --py-only run one half.
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fail, installAll, root } from "./setup.mjs";

const flags = new Set(process.argv.slice(2));
for (const flag of flags)
  if (flag !== "--ts-only" && flag !== "--py-only") fail(`unknown option ${flag} (--ts-only, --py-only)`);

const python = await installAll(); // the TypeScript tests run on bundles that Python exports

const bin = (name) => `node_modules/.bin/${name}`;
/** With two workers each: nothing runs beside them. */
const tests = {
  typescript: [["TypeScript tests", bin("vitest"), "run"]],
  python: [
    ["Python tests", python, "-m", "pytest", "test/python", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"],
  ],
};
/** Of one process each: they run side by side. The longest come first. */
const checks = {
  typescript: [
    ["CUDA kernels compile", process.execPath, "scripts/build-native.mjs", "cuda", "--compile"],
    [
      "image (the Dockerfile's steps, and a server of what they make)",
      process.execPath,
      "scripts/check-dockerfile.mjs",
    ],
    ["types", bin("tsc"), "--noEmit"],
    ["lint and format (TypeScript)", bin("biome"), "check", "--error-on-warnings", "."],
    ["lint (OpenAPI)", bin("redocly"), "lint", "openapi.yaml", "--format=stylish"],
    ["known vulnerabilities", process.execPath, "scripts/audit.mjs"],
  ],
  python: [
    ["lint (Python)", python, "-m", "ruff", "check", "scripts", "test/python"],
    ["format (Python)", python, "-m", "ruff", "format", "--check", "scripts", "test/python"],
    ["lint (Dockerfile)", join(dirname(python), "hadolint"), "Dockerfile"],
  ],
};
const isChosen = (half) => !flags.has(half === "python" ? "--ts-only" : "--py-only");
const chosen = (halves) => Object.keys(halves).flatMap((half) => (isChosen(half) ? halves[half] : []));

const env = {
  ...process.env,
  PYTHON: python,
  OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? "1",
  REDOCLY_SUPPRESS_UPDATE_NOTICE: "true",
};
const seconds = () => performance.now() / 1000;
const failed = [];
let passed = 0;

/** What a check has left in its folder for temporary files. pytest's own folder holds what failed tests have written. */
const leftIn = (folder) => readdirSync(folder).filter((name) => !name.startsWith("pytest-of-"));

/** Runs one check; what it says is shown as it says it, or in one piece at its end when others run beside it. */
async function check([title, command, ...args], isAlone) {
  const start = seconds();
  const temporary = mkdtempSync(join(tmpdir(), "mblm-check-"));
  chmodSync(temporary, 0o755); // the image's server runs as another user
  if (isAlone) console.log(`\n== ${title}`);
  const child = spawn(command, args, {
    cwd: root,
    env: { ...env, TMPDIR: temporary },
    stdio: ["ignore", ...(isAlone ? ["inherit", "inherit"] : ["pipe", "pipe"])],
  });
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (part) => said.push(part));
  const succeeds = await new Promise((resolve) => {
    child.once("error", (error) => {
      said.push(`cannot run ${command}: ${error.message}\n`);
      resolve(false);
    });
    child.once("close", (status) => resolve(status === 0));
  });
  if (!isAlone) console.log(`\n== ${title}`);
  process.stdout.write(Buffer.concat(said.map((part) => Buffer.from(part))));
  const left = leftIn(temporary);
  if (left.length > 0) console.log(`left in the folder for temporary files: ${left.join(" ")}`);
  const isPassed = succeeds && left.length === 0;
  console.log(`== ${title}: ${isPassed ? "passed" : "FAILED"} in ${(seconds() - start).toFixed(0)} s`);
  if (isPassed) {
    passed++;
    rmSync(temporary, { recursive: true, force: true });
  } else {
    failed.push(title);
    console.log(`its temporary files are kept in ${temporary}`);
  }
}

const queue = chosen(checks);
const runner = async () => {
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) await check(next, false);
};
await Promise.all(Array.from({ length: Math.min(availableParallelism(), 2) }, runner));
for (const one of chosen(tests)) await check(one, true);

console.log(`\nchecks: ${passed} passed, ${failed.length} failed${failed.map((title) => `\n  ${title}`).join("")}`);
process.exit(failed.length === 0 ? 0 : 1);
