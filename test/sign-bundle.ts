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
