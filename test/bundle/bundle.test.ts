import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { loadBundle } from "../../src/bundle/bundle.js";
import { MblmError } from "../../src/errors.js";
import { scratchFolder } from "../scratch-folder.js";
import { copyBundle, editManifest, writeSigned } from "../sign-bundle.js";
import { bundleNames, loadTestBundle } from "../test-bundles.js";

let dir: string;
beforeEach(() => {
  dir = copyBundle("mamba2-transformer", join(scratchFolder("bundle"), "b"));
});

async function refusal(): Promise<string> {
  const error = await loadBundle(dir).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MblmError);
  expect((error as MblmError).code).toBe("bundle_invalid");
  return (error as MblmError).message;
}

/** Sets the value at a path such as `cuda.stages.1.fused.graph`; undefined takes the key away. */
function set(manifest: object, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop()!;
  const owner = keys.reduce((object, key) => (object as Record<string, object>)[key]!, manifest);
  if (value === undefined) Reflect.deleteProperty(owner, last);
  else (owner as Record<string, unknown>)[last] = value;
}

describe("loadBundle", () => {
  it.each(bundleNames)("loads %s and knows its shape", async (name) => {
    const { info, manifest, constant } = await loadTestBundle(name);
    expect(info.id).toBe(name);
    expect(info.numStages).toBe(manifest.stages.length);
    expect(constant("initial_logits")).toHaveLength(info.vocabularySize);
    expect(info.numParameters).toBeGreaterThan(1000);
  });

  it("a missing folder, a missing file", async () => {
    rmSync(join(dir, "weights.bin"));
    expect(await refusal()).toContain("weights.bin is missing");
    rmSync(dir, { recursive: true });
    expect(await refusal()).toContain("is not a bundle");
  });

  it("a cut file, a changed byte", async () => {
    const path = join(dir, "weights.bin");
    const content = readFileSync(path);
    content[1000]! ^= 1;
    writeFileSync(path, content);
    expect(await refusal()).toContain("weights.bin is damaged");
    await expect(loadBundle(dir, { verifyChecksums: false })).resolves.toBeDefined();
    truncateSync(path, 100);
    expect(await refusal()).toContain("weights.bin has 100 bytes");
  });

  it("a manifest as it is written, changed in nothing", async () => {
    editManifest(dir, () => {});
    await expect(loadBundle(dir)).resolves.toBeDefined();
  });

  // What is said names the path, and the bound.
  it.each<[path: string, value: unknown, message: string]>([
    ["format_version", 3, "format_version 3 is not supported"],
    ["format", "gguf", "/format"],
    ["architecture", undefined, "architecture"],
    ["created", "yesterday", 'created: "yesterday" is not a date and time of ISO 8601'],
    ["created", "2026-13-01T00:00:00Z", 'created: "2026-13-01T00:00:00Z" is not a date'],
    ["architecture.seq_lens", [1024], "architecture.seq_lens has 1 entries for 2 stages"],
    ["architecture.context_length", 7, "architecture.context_length: 7 is not the product of seq_lens, 4096"],
    ["architecture.max_length", 1e9, "architecture.max_length: 1000000000 is not what the first stage holds, null"],
    ["architecture.pad_token_id", 256, "architecture.pad_token_id: 256 is outside the vocabulary of 256"],
    ["architecture.vocab_size", 257, "constants: tensors.initial_logits has 256 values, needed are 257"],
    ["special_ids.eos", -5, "/special_ids/eos"],
    ["special_ids.eos", 99_999, "special_ids.eos: 99999 is outside the vocabulary of 256"],
    ["special_ids.bos", 256, "special_ids.bos: 256 is outside"],
    ["special_ids.pad", 256, "special_ids.pad: 256 is outside"],
    ["stages.0.bytes_per_step", 5, "stages[0]: index or bytes_per_step is wrong (a step covers 4 bytes)"],
    ["stages.0.seq_len", 1023, "stages[0]: seq_len or width differs"],
    ["stages.0.role", "local", "stages[0].role is local, of this stage it is global"],
    ["stages.0.max_steps", 1e9, "stages[0].max_steps is 1000000000, a sequence of the stage has 1024"],
    ["stages.1.max_steps", null, "stages[1].max_steps is null, a sequence of the stage has 4"],
    ["stages.0.start_context", null, "stages[0].start_context"],
    ["stages.1.start_context", { tensor: "initial_logits" }, "stages[1].start_context"],
    ["stages.1.states.1.shape", [3, 4, 16], "stages[1].states[1]: a cache has [heads, more positions than max_steps"],
    ["stages.1.states.1.shape", [240], "stages[1].states[1]: a cache has [heads"],
    [
      "stages.0.states.1.shape",
      [8, 16, 17],
      "stages[0].states[1].initial: constants: tensors.stage0.after_start.0.ssm_state has",
    ],
    [
      "stages.0.states.0.initial.tensor",
      "toString",
      "stages[0].states[0].initial: constants: there is no tensor toString",
    ],
    ["initial_logits.tensor", "nothing", "constants: there is no tensor nothing"],
    [
      "scoring_logits.tensor",
      "stage0.start_context",
      "constants: tensors.stage0.start_context has 192 values, needed are 256",
    ],
    // Files: what is named is in the list, and what is in the list is in the folder.
    ["files", { "..": { bytes: 1, sha256: "0".repeat(64) } }, "/files"],
    ["files", { "../x": { bytes: 1, sha256: "0".repeat(64) } }, "/files"],
    ["stages.0.graph", "constructor", "stages[0].graph: constructor is not in files"],
    ["stages.0.graph", "../b/stage0.onnx", "stages[0].graph: ../b/stage0.onnx is not in files"],
    ["stages.0.prefill_graph", "prefill.onnx", "stages[0].prefill_graph: prefill.onnx is not in files"],
    ["stages.0.graph", "weights.bin", "weights.bin is not an ONNX model"],
    ["constants.file", "../outside.bin", "constants.file: ../outside.bin is not in files"],
    ["cuda.weights.file", "w.bin", "cuda.weights.file: w.bin is not in files"],
    ["cuda.stages.0.step_graph", "s.onnx", "cuda.stages[0].step_graph: s.onnx is not in files"],
    ["cuda.stages.1.chunk_graph", "toString", "cuda.stages[1].chunk_graph: toString is not in files"],
    ["cuda.stages.1.fused.graph", "f.onnx", "cuda.stages[1].fused.graph: f.onnx is not in files"],
    // Tensors lie in their files.
    [
      "constants.tensors.initial_logits.bytes",
      1020,
      "constants: tensors.initial_logits: 1020 bytes are not [256] of float32",
    ],
    [
      "constants.tensors.initial_logits.shape",
      [2 ** 40, 2 ** 40],
      "constants: tensors.initial_logits: 1024 bytes are not",
    ],
    [
      "constants.tensors.initial_logits.offset",
      2 ** 40,
      "constants: tensors.initial_logits lies outside constants.bin",
    ],
    ["constants.tensors.initial_logits.offset", -4, "/constants/tensors/initial_logits/offset"],
    [
      "cuda.weights.tensors.initial_logits.offset",
      2 ** 40,
      "cuda: weights: tensors.initial_logits lies outside cuda-weights.bin",
    ],
    [
      "cuda.weights.tensors.initial_logits.bytes",
      512,
      "cuda: weights: tensors.initial_logits: 512 bytes are not [256] of float32",
    ],
    [
      "cuda.weights.tensors.initial_logits.dtype",
      "float16",
      "cuda: weights: tensors.initial_logits: 1024 bytes are not [256] of float16",
    ],
    ["cuda.weights.tensors.scoring_logits", undefined, "cuda: weights: there is no tensor scoring_logits"],
    ["cuda.work_type", "float16", "cuda: weights: tensors.stage0.start_context is float32, needed is float16"],
    ["cuda.ops_version", 2, "cuda: ops_version 2 is not supported"],
    ["cuda.stages.0.states.0.axis", 2, "cuda: stages[0].states[0].axis: 2 is none of [3,160]"],
    ["cuda.stages.0.states.0.axis", 1, "cuda: stages[0].states[0]: a cache has at least max_steps positions"],
  ])("%s: %j", async (path, value, message) => {
    editManifest(dir, (manifest) => set(manifest, path, value));
    expect(await refusal()).toContain(message);
  });

  it.each(["constants.bin", "weights.bin", "stage0.onnx", "cuda-weights.bin", "cuda-stage1-patch.onnx"])(
    "%s, not in the manifest's files, wherever it is: what has no checksum is not read",
    async (file) => {
      editManifest(dir, ({ files }) => Reflect.deleteProperty(files, file));
      expect(await refusal()).toMatch(/is not in (the manifest's )?files/);
      rmSync(join(dir, file));
      expect(await refusal()).toMatch(/is not in (the manifest's )?files/);
    },
  );

  it("a folder in place of a file", async () => {
    rmSync(join(dir, "weights.bin"));
    mkdirSync(join(dir, "weights.bin"));
    expect(await refusal()).toContain("weights.bin is not a file");
  });

  it("a graph that is cut, under a right checksum", async () => {
    const graph = readFileSync(join(dir, "stage0.onnx"));
    writeSigned(dir, "stage0.onnx", graph.subarray(0, graph.length - 10));
    expect(await refusal()).toContain("stage0.onnx is not an ONNX model");
  });

  it("of a bundle for a device only, no file for the CPU", async () => {
    for (const file of ["stage0.onnx", "stage1.onnx", "weights.bin"]) rmSync(join(dir, file));
    editManifest(dir, ({ files, cuda }) => {
      for (const file of ["stage0.onnx", "stage1.onnx", "weights.bin"]) Reflect.deleteProperty(files, file);
      cuda!.only = true;
    });
    await expect(loadBundle(dir)).resolves.toBeDefined();
  });

  it.each<[string, object, string]>([
    [
      "a place too small for a block",
      { restart_blocks: 1, block_bytes: 2 },
      "block_bytes is 2, it must be 0 or at least 3",
    ],
    ["places without markers", { restart_blocks: 2, block_bytes: 8 }, "block_bytes needs restart_blocks 1, which is 2"],
    ["a place too large", { restart_blocks: 1, block_bytes: 65 }, "/vqa/image"],
  ])("visual questions about JPEG files: %s", async (_, image, message) => {
    copyBundle("vqa-jpeg", dir);
    editManifest(dir, ({ vqa }) => Object.assign(vqa!.image, image));
    expect(await refusal()).toContain(message);
  });

  it("a model of JPEG files from before blocks had places", async () => {
    copyBundle("vqa-jpeg", dir);
    editManifest(dir, ({ vqa }) => Reflect.deleteProperty(vqa!.image, "block_bytes"));
    expect((await loadBundle(dir)).info.vqa?.image.encoding).toMatchObject({ mode: "jpeg", blockBytes: 0 });
  });

  it("a manifest that is not JSON", async () => {
    writeFileSync(join(dir, "manifest.json"), "{");
    expect(await refusal()).toContain("is not JSON");
  });
});
