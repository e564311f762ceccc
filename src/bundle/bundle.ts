import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import { type Manifest, parseManifest } from "./manifest.js";
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
  const constants = await readConstants(dir, manifest);
  const bundle: Bundle = {
    dir,
    manifest,
    info,
    constant(name) {
      const tensor = constants.get(name);
      if (!tensor) throw new MblmError("bundle_invalid", `${dir}: constants have no tensor ${name}`);
      return tensor;
    },
    path(file) {
      if (!(file in manifest.files))
        throw new MblmError("bundle_invalid", `${dir}: ${file} is not in the manifest's files`);
      return join(dir, file);
    },
  };
  checkReferences(bundle);
  return bundle;
}

async function checkFile(dir: string, manifest: Manifest, file: string, verifyChecksum: boolean): Promise<void> {
  const expected = manifest.files[file]!;
  const info = await stat(join(dir, file)).catch((cause) => {
    throw new MblmError("bundle_invalid", `${dir}: ${file} is missing`, { cause });
  });
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

async function readConstants(dir: string, manifest: Manifest): Promise<Map<string, Float32Array>> {
  const { file, tensors } = manifest.constants;
  const content = await readFile(join(dir, file));
  const result = new Map<string, Float32Array>();
  for (const [name, entry] of Object.entries(tensors)) {
    const count = entry.shape.reduce((a, b) => a * b, 1);
    if (entry.bytes !== 4 * count || entry.offset + entry.bytes > content.length) {
      throw new MblmError("bundle_invalid", `${dir}: constant ${name} lies outside ${file} or has the wrong size`);
    }
    // Copied: the file's buffer need not be aligned to four bytes.
    result.set(
      name,
      new Float32Array(
        content.buffer.slice(content.byteOffset + entry.offset, content.byteOffset + entry.offset + entry.bytes),
      ),
    );
  }
  return result;
}

/** Every constant that the stages name exists and has the size that its use needs. */
function checkReferences(bundle: Bundle): void {
  const { stages, architecture, initial_logits, scoring_logits } = bundle.manifest;
  const expectLength = (name: string, length: number) => {
    const actual = bundle.constant(name).length;
    if (actual !== length) {
      throw new MblmError(
        "bundle_invalid",
        `${bundle.dir}: constant ${name} has ${actual} values, needed are ${length}`,
      );
    }
  };
  for (const { tensor } of [initial_logits, scoring_logits]) expectLength(tensor, architecture.vocab_size);
  for (const [i, stage] of stages.entries()) {
    if (bundle.manifest.cuda?.only !== true) bundle.path(stage.graph);
    const child = stages[i + 1];
    if (child) expectLength(stage.start_context?.tensor ?? "(missing)", child.seq_len * child.width);
    for (const state of stage.states) {
      const size = state.shape.reduce((a, b) => a * b, 1);
      expectLength(state.initial.tensor, state.reset === "none" ? size / state.shape[1]! : size);
    }
  }
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
