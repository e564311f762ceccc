import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { loadBundle } from "../../src/bundle/bundle.js";
import { MblmError } from "../../src/errors.js";
import { scratchFolder } from "../scratch-folder.js";
import { bundleDir, bundleNames, loadTestBundle } from "../test-bundles.js";

let dir: string;
beforeEach(() => {
  dir = join(scratchFolder("bundle"), "b");
  cpSync(bundleDir("mamba2-transformer"), dir, { recursive: true });
});

interface Json {
  architecture: { seq_lens: number[] };
  stages: object[];
  initial_logits: object;
  files: object;
  vqa: { image: object };
}
function editManifest(change: (manifest: Json) => void): void {
  const path = join(dir, "manifest.json");
  const manifest = JSON.parse(readFileSync(path, "utf8")) as Json;
  change(manifest);
  writeFileSync(path, JSON.stringify(manifest));
}

async function refusal(): Promise<string> {
  const error = await loadBundle(dir).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MblmError);
  expect((error as MblmError).code).toBe("bundle_invalid");
  return (error as MblmError).message;
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

  it.each<[string, (manifest: Json) => void, string]>([
    ["a newer format", (m) => Object.assign(m, { format_version: 3 }), "format_version 3 is not supported"],
    ["another format", (m) => Object.assign(m, { format: "gguf" }), "/format"],
    ["a lost key", (m) => Reflect.deleteProperty(m, "architecture"), "architecture"],
    ["lists of different lengths", (m) => m.architecture.seq_lens.pop(), "architecture.seq_lens"],
    ["a wrong stride", (m) => Object.assign(m.stages[0]!, { bytes_per_step: 5 }), "stages[0]"],
    ["a wrong constant", (m) => Object.assign(m.initial_logits, { tensor: "nothing" }), "no tensor nothing"],
    [
      "a path out of the folder",
      (m) => Object.assign(m.files, { "../x": { bytes: 1, sha256: "0".repeat(64) } }),
      "/files",
    ],
  ])("%s", async (_, change, message) => {
    editManifest(change);
    expect(await refusal()).toContain(message);
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
    cpSync(bundleDir("vqa-jpeg"), dir, { recursive: true });
    editManifest((m) => Object.assign(m.vqa.image, image));
    expect(await refusal()).toContain(message);
  });

  it("a model of JPEG files from before blocks had places", async () => {
    cpSync(bundleDir("vqa-jpeg"), dir, { recursive: true });
    editManifest((m) => Reflect.deleteProperty(m.vqa.image, "block_bytes"));
    expect((await loadBundle(dir)).info.vqa?.image.encoding).toMatchObject({ mode: "jpeg", blockBytes: 0 });
  });

  it("a manifest that is not JSON", async () => {
    writeFileSync(join(dir, "manifest.json"), "{");
    expect(await refusal()).toContain("is not JSON");
  });
});
