// Makes one folder with all that a bare GPU host needs (Linux on x86-64 with a driver and CUDA's libraries; no Node, no network):
//
//   node scripts/pack-gpu-host.mjs --out DIR [--cuda-dir DIR] [--bundle DIR]... [--parts MIB]
//   on the host:  DIR/mblm-server serve --model DIR/bundles/NAME      or  DIR/bench-gpu --bundle DIR/bundles/NAME
//
// The folder has this machine's Node, ONNX Runtime's core library with its CUDA providers (from `mblm-server install-cuda`), CUDA's own
// libraries where install-cuda has fetched them, the compiled server, the packages that it needs, the operators and the scripts.
// --parts also packs it into files of at most so many MiB beside it (DIR.part-00 …), for hosts that take only small files:
//   cat DIR.part-* | xz -dc | tar x
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { build, fail, requireNode, root } from "./setup.mjs";

const MIB = 2 ** 20;

/** Not read when the server runs. */
const LEFT_OUT = /(\.map|\.d\.[cm]?ts|\.ts|\.md|\.markdown|__pycache__)$/i;

/** The CPU's ONNX Runtime is not used on a GPU: the core library beside the providers is. */
const CPU_LIBRARIES = /^node_modules\/onnxruntime-node\/bin\//;

const { values: options } = parseArgs({
  options: {
    out: { type: "string" },
    "cuda-dir": { type: "string" },
    bundle: { type: "string", multiple: true, default: [] },
    parts: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (options.help || options.out === undefined) {
  console.log(
    fs
      .readFileSync(new URL(import.meta.url), "utf8")
      .split("\nimport")[0]
      .replace(/^\/\/ ?/gm, ""),
  );
  process.exit(options.help ? 0 : 2);
}

/** Copies a file or folder; what `isOut` says of its path below the project stays out. */
function copy(from, to, isOut = () => false) {
  const filter = (path) => !LEFT_OUT.test(path) && !isOut(path.slice(root.length));
  fs.mkdirSync(dirname(to), { recursive: true });
  fs.cpSync(from, to, { recursive: true, filter, dereference: true });
}

/** Packages that are needed where the server runs, of those that are installed here. */
function productionPackages() {
  const { packages } = JSON.parse(fs.readFileSync(join(root, "package-lock.json"), "utf8"));
  return Object.keys(packages).filter(
    (path) => path !== "" && packages[path].dev !== true && fs.existsSync(join(root, path)),
  );
}

function copyPackages(out) {
  for (const path of productionPackages()) {
    const isOut = (below) => CPU_LIBRARIES.test(below) || below.slice(path.length).includes("/node_modules");
    copy(join(root, path), join(out, path), isOut);
  }
}

/** The folder that install-cuda fills unless it is told another. */
function defaultCudaDir() {
  const manifest = join(root, "node_modules", "onnxruntime-node", "package.json");
  const { version } = JSON.parse(fs.readFileSync(manifest, "utf8"));
  const data = process.env.XDG_DATA_HOME || join(homedir(), ".local", "share");
  return join(data, "mblm-server", `cuda-${version}`);
}

function copyLibraries(cudaDir, out) {
  const needed = ["libonnxruntime.so.1", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];
  const missing = needed.filter((name) => !fs.existsSync(join(cudaDir, name)));
  if (missing.length > 0) fail(`${missing.join(", ")} not in ${cudaDir}; run: mblm-server install-cuda, or --cuda-dir`);
  copy(cudaDir, join(out, "cuda"), (path) => basename(path).startsWith("."));
}

/** A shell script in the folder that runs one of its programs with its own Node. */
function writeLauncher(out, name, command) {
  const text = `#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\n${command} "$@"\n`;
  fs.writeFileSync(join(out, name), text, { mode: 0o755 });
}

/** Packs the folder and cuts the result into files of at most `limit` bytes. Returns their paths. */
async function writeParts(out, limit) {
  const tar = spawn("tar", ["c", "-C", dirname(out), basename(out)], { stdio: ["ignore", "pipe", "inherit"] });
  const xz = spawn("xz", ["-T0", "-3"], { stdio: ["pipe", "pipe", "inherit"] });
  const packed = pipeline(tar.stdout, xz.stdin);
  const parts = [];
  let left = 0;
  let file;
  for await (let chunk of xz.stdout) {
    while (chunk.length > 0) {
      if (left === 0) {
        file?.end();
        parts.push(`${out}.part-${String(parts.length).padStart(2, "0")}`);
        file = fs.createWriteStream(parts.at(-1));
        left = limit;
      }
      const piece = chunk.subarray(0, left);
      if (!file.write(piece)) await once(file, "drain");
      left -= piece.length;
      chunk = chunk.subarray(piece.length);
    }
  }
  file?.end();
  await packed;
  if (file) await once(file, "close");
  return parts;
}

requireNode();
const out = resolve(options.out);
if (fs.existsSync(out) && fs.readdirSync(out).length > 0) fail(`--out: ${out} is not empty`);
const partBytes = options.parts === undefined ? undefined : Number(options.parts) * MIB;
if (partBytes !== undefined && !(partBytes >= MIB)) fail("--parts: must be a number of MiB, at least 1");
const operators = join("native", "prebuilt", "linux-x64", "libmblm_ops_cuda.so");
if (!fs.existsSync(join(root, operators))) fail(`${operators} is not there`);
const cudaDir = resolve(options["cuda-dir"] ?? defaultCudaDir());
await build();
fs.mkdirSync(out, { recursive: true });
copyLibraries(cudaDir, out);
copy(process.execPath, join(out, "node"));
copy(join(root, "dist"), join(out, "dist"));
copy(join(root, "package.json"), join(out, "package.json"));
copy(join(root, operators), join(out, operators));
copy(join(root, "scripts"), join(out, "scripts"));
copyPackages(out);
for (const bundle of options.bundle) copy(resolve(bundle), join(out, "bundles", basename(resolve(bundle))));
writeLauncher(out, "mblm-server", 'MBLM_CUDA_DIR="$here/cuda" exec "$here/node" "$here/dist/cli/main.js"');
writeLauncher(out, "bench-gpu", 'exec "$here/node" "$here/scripts/bench-gpu.mjs" --cuda-dir "$here/cuda"');
const [size] = execFileSync("du", ["-sm", out], { encoding: "utf8" }).split("\t");
console.log(`${out}: ${size} MiB`);
if (partBytes !== undefined) {
  for (const part of await writeParts(out, partBytes)) {
    console.log(`${part}: ${(fs.statSync(part).size / MIB).toFixed(1)} MiB`);
  }
}
