// Builds the operators' libraries (native/). Plain Node, no packages needed.
//
//   node scripts/build-native.mjs reference        the CPU reference: native/build/libmblm_ops_reference.so (g++)
//   node scripts/build-native.mjs cuda             the CUDA kernels: native/build/libmblm_ops_cuda.so (nvcc)
//   node scripts/build-native.mjs all              both
//   node scripts/build-native.mjs cuda --install   makes the CUDA library the one that is shipped
//   node scripts/build-native.mjs cuda --compile   only compiles the CUDA sources, for one architecture: do they still?
//   node scripts/build-native.mjs --check          does the shipped library belong to these sources?
//   node scripts/build-native.mjs --list           shapes of local stages that it has a kernel for a whole patch for
//
// `cuda` and --list also take, any number of times, shapes beside those of native/cuda/local_patch_shapes.json (with --install
// they are written there; docs/fused-kernel.md):
//
//   --bundle DIR                          the shape of this bundle's local stage
//   --shape width=512,ff=2,head=64        channels of the stage, of its feed-forward for each of them, of a head
//
// `cuda --absent-after N` builds native/build/libmblm_ops_cuda_absent.so, to see what happens when that kernel does not end: after N
// positions one of its blocks is missing. It has the shapes that are given, if any are, and no others.
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
  statSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { compiledHeader, nameOf, parseShape, readShapes, shapeOfBundle, united, writeShapes } from "./patch-shapes.mjs";
import { fail, root } from "./setup.mjs";

const native = join(root, "native");
const shipped = join(native, "prebuilt", "linux-x64", "libmblm_ops_cuda.so");
const checksums = join(native, "prebuilt", "checksums.json");
const shapesFile = join(native, "cuda", "local_patch_shapes.json");

const CUDA_MAJOR = 13;
const WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter"];
/** Products and sums are rounded one by one: the reference must not depend on the compiler's taste in fused ones. */
const HOST_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-ffp-contract=off"];
const CUDA_FLAGS = ["-std=c++17", "-O3", "--compress-mode=size", "-DMBLM_CUDA", "-Xcompiler", "-fPIC"];
/** Code for Hopper, and code from which a driver makes that of any later device. */
const HOPPER_AND_LATER = [
  ...["-gencode", "arch=compute_90,code=sm_90"],
  ...["-gencode", "arch=compute_90,code=compute_90"],
];
/** And for Ampere. */
const SHIPPED_ARCHITECTURES = ["-gencode", "arch=compute_80,code=sm_80", ...HOPPER_AND_LATER];
/** Whether the sources compile, not how well: a third of the time. */
const CHECK_FLAGS = ["-gencode", "arch=compute_90,code=sm_90", "-Xcicc", "-O1", "-Xptxas", "-O1"];
/** The sampler's float64 sums are those of the reference: no fused ones. */
const FILE_FLAGS = { "sample.cu": ["--fmad=false"], "local_patch_shape.cu": ["--fmad=false"] };
/** Compiled once for each shape of a local stage. */
const SHAPE_SOURCE = join("cuda", "local_patch_shape.cu");
/** Says which shapes there are. */
const SHAPES_SOURCE = join("cuda", "local_patch.cu");

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
  const flags = JSON.stringify([CUDA_FLAGS, SHIPPED_ARCHITECTURES, FILE_FLAGS, readShapes(shapesFile)]);
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
 * @param units of each: the source, the command with its arguments, and a name of the object if not the source's
 * @returns paths of the objects
 */
async function compile(folder, units) {
  mkdirSync(folder, { recursive: true });
  const objects = units.map(({ source, command: [command, ...args], name = basename(source) }) => {
    const contents = withIncluded(source).flatMap((file) => [file, contentOf(file)]);
    const digest = sha256(JSON.stringify(args), ...contents).slice(0, 16);
    return { source, command, args, path: join(folder, `${name}.${digest}.o`) };
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
  const command = [compiler, ...HOST_FLAGS, ...WARNINGS];
  const objects = await compile(folder, sourcesOf("reference").map((source) => ({ source, command }))); // biome-ignore format: one thought
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

/** The folder of the header that lists the shapes, named by what it lists. */
function writeShapesHeader(shapes) {
  const header = compiledHeader(shapes);
  const folder = join("build", `shapes-${sha256(header).slice(0, 16)}`);
  mkdirSync(join(native, folder), { recursive: true });
  writeFileSync(join(native, folder, "local_patch_compiled.h"), header);
  return folder;
}

/** Kernels of a shape are no use to what is older than Hopper. */
function shapeUnits(nvcc, shapes, flags) {
  return shapes.map((shape) => {
    const sizes = [`-DMBLM_WIDTH=${shape.width}`, `-DMBLM_FF=${shape.ff}`, `-DMBLM_HEAD=${shape.head}`];
    const command = [nvcc, ...CUDA_FLAGS, ...flags, ...FILE_FLAGS[basename(SHAPE_SOURCE)], ...sizes];
    return { source: SHAPE_SOURCE, command, name: `local_patch_${nameOf(shape)}` };
  });
}

async function compileCuda(nvcc, kind, flags, shapeFlags, shapes) {
  const header = writeShapesHeader(shapes);
  const files = sourcesOf("cuda").filter((source) => source !== SHAPE_SOURCE);
  const units = files.map((source) => {
    const more = source === SHAPES_SOURCE ? ["-I", header] : (FILE_FLAGS[basename(source)] ?? []);
    return { source, command: [nvcc, ...CUDA_FLAGS, ...flags, ...more] };
  });
  // What takes longest comes first.
  return await compile(join(native, "build", kind), [...shapeUnits(nvcc, shapes, shapeFlags), ...units]);
}

/** Builds the CUDA library; returns its path. */
async function buildCuda(shapes, absentAfter) {
  const nvcc = findNvcc();
  const suffix = absentAfter === undefined ? "" : "_absent";
  const trial = absentAfter === undefined ? [] : [`-DMBLM_ABSENT_AFTER=${absentAfter}`];
  const shapeFlags = [...HOPPER_AND_LATER, ...trial];
  const objects = await compileCuda(nvcc, `cuda${suffix}`, SHIPPED_ARCHITECTURES, shapeFlags, shapes);
  // PyPI's wheels have the static runtime in lib, where the toolkit has lib64.
  const wheelLibraries = join(dirname(dirname(nvcc)), "lib");
  return await link(`libmblm_ops_cuda${suffix}.so`, objects, nvcc, [
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

/** The arguments: what is to be done, and shapes beside the listed ones. */
function parseCommand(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      install: { type: "boolean" },
      compile: { type: "boolean" },
      check: { type: "boolean" },
      list: { type: "boolean" },
      help: { type: "boolean", short: "h" },
      shape: { type: "string", multiple: true, default: [] },
      bundle: { type: "string", multiple: true, default: [] },
      "absent-after": { type: "string" },
    },
  });
  const flags = ["install", "compile", "check", "list", "help"]
    .filter((name) => values[name])
    .map((name) => `--${name}`);
  const shapes = [...values.shape.map(parseShape), ...values.bundle.map(shapeOfBundle)];
  const command = [...positionals, ...flags].join(" ");
  if (shapes.length > 0 && !["cuda", "cuda --install", "--list"].includes(command)) {
    throw new Error("--shape and --bundle go with cuda, cuda --install and --list");
  }
  const absentAfter = values["absent-after"];
  if (absentAfter !== undefined && (command !== "cuda" || !/^[1-9]\d{0,8}$/.test(absentAfter))) {
    throw new Error("--absent-after must be a number, from 1 on, and goes with cuda");
  }
  return { command, shapes, absentAfter };
}

/** The text at the head of this file. */
function help() {
  const [head] = readFileSync(new URL(import.meta.url), "utf8").split("\nimport");
  console.log(head.replace(/^\/\/ ?/gm, ""));
}

async function main(args) {
  const { command, shapes: more, absentAfter } = parseCommand(args);
  const listed = readShapes(shapesFile);
  const shapes = united(listed, more);
  switch (command) {
    case "--help":
      return help();
    case "reference":
      return void (await buildReference());
    case "cuda": {
      const built = absentAfter !== undefined && more.length > 0 ? united([], more) : shapes;
      return report(await buildCuda(built, absentAfter), built);
    }
    case "all":
      await buildReference();
      return report(await buildCuda(shapes), shapes);
    case "cuda --install": {
      const library = await buildCuda(shapes);
      if (shapes.length > listed.length) writeShapes(shapesFile, shapes);
      install(library);
      return report(shipped, shapes);
    }
    case "cuda --compile":
      return void (await compileCuda(findNvcc(), "cuda-check", CHECK_FLAGS, CHECK_FLAGS, listed.slice(0, 1)));
    case "--list":
      return console.log(shapes.map(nameOf).join("\n"));
    case "--check": {
      const problem = problemOfShipped();
      if (problem !== undefined) fail(problem);
      return;
    }
    default:
      fail(
        `unknown arguments "${command}" (reference, cuda, all, cuda --install, cuda --compile, --check, --list; see --help)`,
      );
  }
}

function report(library, shapes) {
  const size = (statSync(library).size / 2 ** 20).toFixed(1);
  console.log(
    `${relative(process.cwd(), library)}: ${size} MiB; whole patches for ${shapes.map(nameOf).join(", ")} (width x ff x head)`,
  );
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv.slice(2)).catch((error) => fail(error.message));
}
