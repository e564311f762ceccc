// Builds the operators' libraries (native/). Plain Node, no packages needed.
//
//   node scripts/build-native.mjs reference        the CPU reference: native/build/libmblm_ops_reference.so (g++)
//   node scripts/build-native.mjs cuda             the CUDA kernels: native/build/libmblm_ops_cuda.so (nvcc)
//   node scripts/build-native.mjs all              both
//   node scripts/build-native.mjs cuda --install   makes the CUDA library the one that is shipped
//   node scripts/build-native.mjs cuda --compile   only compiles the CUDA sources, for one architecture: do they still?
//   node scripts/build-native.mjs --check          does the shipped library belong to these sources?
//
// The shipped library is native/prebuilt/linux-x64/libmblm_ops_cuda.so; native/prebuilt/checksums.json ties it to its sources.
// nvcc of CUDA 13 is taken from $NVCC, from PATH, or from the Python environment (scripts/requirements-cuda-build.txt).
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { fail, root } from "./setup.mjs";

const native = join(root, "native");
const shipped = join(native, "prebuilt", "linux-x64", "libmblm_ops_cuda.so");
const checksums = join(native, "prebuilt", "checksums.json");

const CUDA_MAJOR = 13;
const WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter"];
/** Products and sums are rounded one by one: the reference must not depend on the compiler's taste in fused ones. */
const HOST_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-ffp-contract=off"];
const CUDA_FLAGS = ["-std=c++17", "-O3", "--compress-mode=size", "-DMBLM_CUDA", "-Xcompiler", "-fPIC"];
/** Code for Ampere and Hopper, and code from which a driver makes that of any later device. */
const SHIPPED_ARCHITECTURES = [
  ...["-gencode", "arch=compute_80,code=sm_80"],
  ...["-gencode", "arch=compute_90,code=sm_90"],
  ...["-gencode", "arch=compute_90,code=compute_90"],
];
/** Whether the sources compile, not how well: a third of the time. */
const CHECK_FLAGS = ["-gencode", "arch=compute_90,code=sm_90", "-Xcicc", "-O1", "-Xptxas", "-O1"];
/** The sampler's float64 sums are those of the reference: no fused ones. */
const FILE_FLAGS = { "sample.cu": ["--fmad=false"], "local_patch.cu": ["--fmad=false"] };

/** Sources of a target, sorted, as paths below native/. */
function sourcesOf(target) {
  const inside = [target, "onnx"].flatMap((folder) =>
    readdirSync(join(native, folder)).map((name) => join(folder, name)),
  );
  return [...inside, "c_api.cpp"].filter((file) => /\.(cpp|cu)$/.test(file)).sort();
}

/** The file and all of ours that it includes, directly or not, sorted. */
function withIncluded(file, found = new Set()) {
  if (found.has(file)) return [];
  found.add(file);
  for (const [, name] of contentOf(file).matchAll(/^#include "(.+)"/gm)) withIncluded(join(dirname(file), name), found);
  return [...found].sort();
}

function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex");
}

const contentOf = (file) => readFileSync(join(native, file), "utf8");

/** Digest of everything that the shipped library is made of. */
function sourcesDigest() {
  const files = [...new Set(sourcesOf("cuda").flatMap((source) => withIncluded(source)))].sort();
  const flags = JSON.stringify([CUDA_FLAGS, SHIPPED_ARCHITECTURES, FILE_FLAGS]);
  return sha256(flags, ...files.flatMap((file) => [file, contentOf(file)]));
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: native, stdio: "inherit" });
    child.on("error", (error) => reject(new Error(`cannot run ${command}: ${error.message}`)));
    child.on("close", (status) => {
      if (status === 0) resolve();
      else reject(new Error(`${basename(command)} failed: ${args.join(" ")}`));
    });
  });
}

/**
 * Compiles what has no object yet, as many at once as there are processors. Objects are named by the digest of all they
 * are made of, and appear under their name when complete, so that builds may run side by side.
 *
 * @returns paths of the objects
 */
async function compile(folder, sources, commandOf) {
  mkdirSync(folder, { recursive: true });
  const objects = sources.map((source) => {
    const [command, ...args] = commandOf(source);
    const contents = withIncluded(source).flatMap((file) => [file, contentOf(file)]);
    const digest = sha256(JSON.stringify(args), ...contents).slice(0, 16);
    return { source, command, args, path: join(folder, `${basename(source)}.${digest}.o`) };
  });
  const queue = objects.filter(({ path }) => !existsSync(path));
  const workers = Array.from({ length: Math.min(queue.length, availableParallelism()) }, async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const partial = `${next.path}.${process.pid}`;
      await run(next.command, [...next.args, "-c", next.source, "-o", partial]);
      renameSync(partial, next.path);
    }
  });
  await Promise.all(workers);
  const paths = objects.map(({ path }) => path);
  for (const name of readdirSync(folder)) {
    if (name.endsWith(".o") && !paths.includes(join(folder, name))) rmSync(join(folder, name), { force: true });
  }
  return paths;
}

/** Links unless the library was made of exactly these objects. */
async function link(name, objects, command, args) {
  const library = join(native, "build", name);
  const stamp = `${library}.made-of`;
  const madeOf = objects.map((path) => basename(path)).join("\n");
  if (existsSync(library) && existsSync(stamp) && readFileSync(stamp, "utf8") === madeOf) return library;
  const partial = `${library}.${process.pid}`;
  await run(command, [...args, ...objects, "-o", partial]);
  renameSync(partial, library);
  writeFileSync(stamp, madeOf);
  return library;
}

/** Builds the reference library; returns its path. */
export async function buildReference() {
  const compiler = process.env.CXX ?? "g++";
  const folder = join(native, "build", "reference");
  const objects = await compile(folder, sourcesOf("reference"), () => [compiler, ...HOST_FLAGS, ...WARNINGS]);
  return await link("libmblm_ops_reference.so", objects, compiler, ["-shared", "-Wl,-Bsymbolic"]);
}

/** nvcc of the pinned major version. */
function findNvcc() {
  const candidates = [process.env.NVCC, "nvcc", ...nvccOfPython(join(root, ".venv"))].filter(Boolean);
  for (const command of candidates) {
    try {
      const text = execFileSync(command, ["--version"], { encoding: "utf8" });
      if (text.includes(`release ${CUDA_MAJOR}.`)) return command;
    } catch {
      // Not there: try the next one.
    }
  }
  return fail(
    `nvcc of CUDA ${CUDA_MAJOR} was not found (set NVCC to its path, or pip install -r scripts/requirements-cuda-build.txt)`,
  );
}

function nvccOfPython(environment) {
  const lib = join(environment, "lib");
  if (!existsSync(lib)) return [];
  return readdirSync(lib)
    .map((name) => join(lib, name, "site-packages", "nvidia", `cu${CUDA_MAJOR}`, "bin", "nvcc"))
    .filter((path) => existsSync(path));
}

async function compileCuda(nvcc, kind, flags) {
  return await compile(join(native, "build", kind), sourcesOf("cuda"), (source) => [
    nvcc,
    ...CUDA_FLAGS,
    ...flags,
    ...(FILE_FLAGS[basename(source)] ?? []),
  ]);
}

/** Builds the CUDA library; returns its path. */
async function buildCuda() {
  const nvcc = findNvcc();
  const objects = await compileCuda(nvcc, "cuda", SHIPPED_ARCHITECTURES);
  // PyPI's wheels have the static runtime in lib, where the toolkit has lib64.
  const wheelLibraries = join(dirname(dirname(nvcc)), "lib");
  return await link("libmblm_ops_cuda.so", objects, nvcc, [
    ...["-shared", "-cudart", "static", ...SHIPPED_ARCHITECTURES],
    ...(existsSync(wheelLibraries) ? [`-L${wheelLibraries}`] : []),
    ...["-Xlinker", "-Bsymbolic", "-Xlinker", "--exclude-libs,ALL"],
  ]);
}

function install(library) {
  mkdirSync(dirname(shipped), { recursive: true });
  copyFileSync(library, shipped);
  const content = { sources: sourcesDigest(), library: sha256OfFile(shipped) };
  writeFileSync(checksums, `${JSON.stringify(content, null, 2)}\n`);
}

const sha256OfFile = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** What is wrong with the shipped library; undefined when it is the one that these sources gave. */
export function problemOfShipped() {
  if (!existsSync(checksums) || !existsSync(shipped)) return "there is no shipped CUDA library";
  const { sources, library } = JSON.parse(readFileSync(checksums, "utf8"));
  if (sha256OfFile(shipped) !== library) return "the shipped CUDA library is not the one in checksums.json";
  if (sourcesDigest() !== sources) {
    return "native/ has changed since the shipped CUDA library was built (node scripts/build-native.mjs cuda --install)";
  }
  return undefined;
}

async function main([target, option, ...rest]) {
  if (rest.length > 0) fail("too many arguments");
  const command = [target, option].filter(Boolean).join(" ");
  switch (command) {
    case "reference":
      return void (await buildReference());
    case "cuda":
      return void (await buildCuda());
    case "all":
      await buildReference();
      return void (await buildCuda());
    case "cuda --install":
      return install(await buildCuda());
    case "cuda --compile":
      return void (await compileCuda(findNvcc(), "cuda-check", CHECK_FLAGS));
    case "--check": {
      const problem = problemOfShipped();
      if (problem !== undefined) fail(problem);
      return;
    }
    default:
      fail(`unknown arguments "${command}" (reference, cuda, all, cuda --install, cuda --compile, --check)`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv.slice(2)).catch((error) => fail(error.message));
}
