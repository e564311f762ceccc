import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import type { Manifest } from "./manifest.js";
import { graphFiles } from "./manifest-problem.js";
import { externalFiles } from "./onnx-file.js";
import { parseManifest } from "./parse-manifest.js";
import { toVqaFormat } from "./vqa-manifest.js";

/** A checked bundle directory with its constants in memory. */
export interface Bundle {
  readonly dir: string;
  readonly manifest: Manifest;
  readonly info: ModelInfo;
  /** A tensor of `constants.bin`; throws for an unknown name. */
  constant(name: string): Float32Array;
  /** Absolute path of one of the bundle's files. */
  path(file: string): string;
}

export interface LoadOptions {
  /** Recompute every file's SHA-256 (default true). Sizes are always checked. */
  readonly verifyChecksums?: boolean;
}

/** What is known of a bundle before it is loaded. */
export interface BundleSummary {
  readonly info: ModelInfo;
  /** Memory that it takes when loaded for so many sequences at a time, about: weights and states. */
  memoryBytes(numSlots: number): number;
}

/** Reads the manifest only. @throws MblmError `bundle_invalid` */
export async function summarizeBundle(dir: string): Promise<BundleSummary> {
  const { manifest, info } = await readManifest(dir);
  const weights = Object.values(manifest.files).reduce((sum, { bytes }) => sum + bytes, 0);
  const states = manifest.stages.flatMap((stage) => stage.states);
  const perSlot = states.reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
  return { info, memoryBytes: (numSlots) => weights + numSlots * perSlot };
}

async function readManifest(dir: string): Promise<{ manifest: Manifest; info: ModelInfo }> {
  const path = join(dir, "manifest.json");
  const text = await readFile(path, "utf8").catch((cause) => {
    throw new MblmError("bundle_invalid", `${dir} is not a bundle: cannot read manifest.json`, { cause });
  });
  const manifest = parseManifest(text, path);
  return { manifest, info: modelInfo(manifest, createHash("sha256").update(text).digest("hex")) };
}

/** Reads and checks a bundle; throws MblmError `bundle_invalid` naming the file or manifest path that is wrong. */
export async function loadBundle(dir: string, options: LoadOptions = {}): Promise<Bundle> {
  const { manifest, info } = await readManifest(dir);
  for (const file of Object.keys(manifest.files)) await checkFile(dir, manifest, file, options.verifyChecksums ?? true);
  await checkGraphs(dir, manifest);
  const constants = await readConstants(dir, manifest);
  return {
    dir,
    manifest,
    info,
    constant(name) {
      const tensor = constants.get(name);
      if (!tensor) throw new MblmError("bundle_invalid", `${dir}: constants have no tensor ${name}`);
      return tensor;
    },
    path(file) {
      if (!Object.hasOwn(manifest.files, file))
        throw new MblmError("bundle_invalid", `${dir}: ${file} is not in the manifest's files`);
      return join(dir, file);
    },
  };
}

async function checkFile(dir: string, manifest: Manifest, file: string, verifyChecksum: boolean): Promise<void> {
  const expected = manifest.files[file]!;
  const info = await stat(join(dir, file)).catch((cause) => {
    throw new MblmError("bundle_invalid", `${dir}: ${file} is missing`, { cause });
  });
  if (!info.isFile()) throw new MblmError("bundle_invalid", `${dir}: ${file} is not a file`);
  if (info.size !== expected.bytes) {
    throw new MblmError(
      "bundle_invalid",
      `${dir}: ${file} has ${info.size} bytes, the manifest says ${expected.bytes}`,
    );
  }
  if (!verifyChecksum) return;
  const hash = createHash("sha256");
  await pipeline(createReadStream(join(dir, file)), hash);
  if (hash.digest("hex") !== expected.sha256) {
    throw new MblmError("bundle_invalid", `${dir}: ${file} is damaged (its SHA-256 differs from the manifest's)`);
  }
}

/** Graphs read their weights from files that the manifest does not name: those, too, have to be in its list, hence checked. */
async function checkGraphs(dir: string, manifest: Manifest): Promise<void> {
  for (const graph of new Set(Object.values(graphFiles(manifest)))) {
    for (const file of externalFiles(await readFile(join(dir, graph)), join(dir, graph))) {
      if (Object.hasOwn(manifest.files, file)) continue;
      const problem = `${graph} has weights in ${JSON.stringify(file)}, which is not in the manifest's files`;
      throw new MblmError("bundle_invalid", `${dir}: ${problem}`);
    }
  }
}

/** The tensors are known to lie in the file. */
async function readConstants(dir: string, manifest: Manifest): Promise<Map<string, Float32Array>> {
  const { file, tensors } = manifest.constants;
  const { buffer, byteOffset } = await readFile(join(dir, file));
  // Copied: the file's buffer need not be aligned to four bytes.
  const entries = Object.entries(tensors).map(([name, { offset, bytes }]): [string, Float32Array] => {
    return [name, new Float32Array(buffer.slice(byteOffset + offset, byteOffset + offset + bytes))];
  });
  return new Map(entries);
}

function modelInfo(manifest: Manifest, bundleDigest: string): ModelInfo {
  const { architecture, special_ids } = manifest;
  return {
    id: manifest.name,
    createdSeconds: Math.floor(Date.parse(manifest.created) / 1000),
    numStages: architecture.num_stages,
    vocabularySize: architecture.vocab_size,
    eosId: special_ids.eos ?? undefined,
    padId: special_ids.pad ?? undefined,
    chat: manifest.chat,
    vqa: manifest.vqa && toVqaFormat(manifest.vqa),
    contextLength: architecture.context_length,
    maxLength: architecture.max_length ?? undefined,
    precision: manifest.precision,
    numParameters: manifest.stages.reduce((sum, stage) => sum + stage.num_parameters, 0),
    bundleDigest,
  };
}
