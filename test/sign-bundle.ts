import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Manifest } from "../src/bundle/manifest.js";
import { bundleDir } from "./test-bundles.js";

/** Copies a test bundle to a folder that is not there yet, to be changed. */
export function copyBundle(name: string, dir: string): string {
  cpSync(bundleDir(name), dir, { recursive: true });
  return dir;
}

/** Changes a bundle's manifest. */
export function editManifest(dir: string, change: (manifest: Manifest) => void): void {
  const path = join(dir, "manifest.json");
  const manifest = JSON.parse(readFileSync(path, "utf8")) as Manifest;
  change(manifest);
  writeFileSync(path, JSON.stringify(manifest));
}

/** Writes a file of a bundle and puts its size and checksum into the manifest, as whoever makes a bundle would. */
export function writeSigned(dir: string, file: string, content: Uint8Array): void {
  writeFileSync(join(dir, file), content);
  const sha256 = createHash("sha256").update(content).digest("hex");
  editManifest(dir, ({ files }) => {
    files[file] = { bytes: content.length, sha256 };
  });
}

/** Makes every float of a file of a bundle no number, under a right checksum. */
export function fillWithNaN(dir: string, file: string): void {
  const content = readFileSync(join(dir, file)).fill(0xff);
  writeSigned(dir, file, content);
}

/** The same of what one stage's graph for the CPU keeps in `weights.bin`. */
export function fillStageWithNaN(dir: string, stage: number): void {
  const content = readFileSync(join(dir, "weights.bin"));
  const graph = readFileSync(join(dir, `stage${stage}.onnx`), "latin1");
  // Pairs of texts as protobuf writes them: a tag and a length before each.
  const ranges = [...graph.matchAll(/offset..(\d+).{2,4}length..(\d+)/gs)];
  if (ranges.length === 0) throw new Error(`stage${stage}.onnx keeps nothing in weights.bin`);
  for (const [, offset, length] of ranges) content.fill(0xff, Number(offset), Number(offset) + Number(length));
  writeSigned(dir, "weights.bin", content);
}

/** The same of all that is one stage's among the weights for a device. */
export function fillDeviceStageWithNaN(dir: string, stage: number): void {
  const { cuda } = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8")) as Manifest;
  const content = readFileSync(join(dir, "cuda-weights.bin"));
  const tensors = Object.entries(cuda!.weights.tensors).filter(([name]) => name.startsWith(`stage_models.${stage}.`));
  for (const [, { offset, bytes }] of tensors) content.fill(0xff, offset, offset + bytes);
  writeSigned(dir, "cuda-weights.bin", content);
}
