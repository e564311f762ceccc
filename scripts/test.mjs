// `npm test`: every check and test, TypeScript and Python. --ts-only and --py-only run one half.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { build, fail, installPackages, installPython, requireNode, root } from "./setup.mjs";

const flags = new Set(process.argv.slice(2));
for (const flag of flags)
  if (flag !== "--ts-only" && flag !== "--py-only") fail(`unknown option ${flag} (--ts-only, --py-only)`);

requireNode();
const python = installPython(); // the TypeScript tests run on bundles that Python exports
installPackages();

const bin = (name) => `node_modules/.bin/${name}`;
const typescript = [
  ["lint and format (TypeScript)", bin("biome"), "check", "--error-on-warnings", "."],
  ["types", bin("tsc"), "--noEmit"],
  ["lint (OpenAPI)", bin("redocly"), "lint", "openapi.yaml", "--format=stylish"],
  ["known vulnerabilities", process.execPath, "scripts/audit.mjs"],
  ["CUDA kernels compile", process.execPath, "scripts/build-native.mjs", "cuda", "--compile"],
  ["TypeScript tests", bin("vitest"), "run"],
  ["image (the Dockerfile's steps, and a server of what they make)", process.execPath, "scripts/check-dockerfile.mjs"],
];
const pythonChecks = [
  ["lint (Python)", python, "-m", "ruff", "check", "scripts", "test/python"],
  ["format (Python)", python, "-m", "ruff", "format", "--check", "scripts", "test/python"],
  ["lint (Dockerfile)", join(dirname(python), "hadolint"), "Dockerfile"],
  ["Python tests", python, "-m", "pytest", "test/python"],
];
const checks = [...(flags.has("--py-only") ? [] : typescript), ...(flags.has("--ts-only") ? [] : pythonChecks)];

build();
let failed = 0;
for (const [title, command, ...args] of checks) {
  console.log(`\n== ${title}`);
  const env = {
    ...process.env,
    PYTHON: python,
    OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? "1",
    REDOCLY_SUPPRESS_UPDATE_NOTICE: "true",
  };
  const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit", env });
  if (status !== 0) {
    failed++;
    console.log(`== ${title}: FAILED`);
  }
}
console.log(`\nchecks: ${checks.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
