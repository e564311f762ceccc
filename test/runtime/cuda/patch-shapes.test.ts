import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { bundleDir } from "../../test-bundles.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** Asks for the shapes that a library would have. */
function list(...args: string[]): { shapes: string[]; error: string; status: number | null } {
  const command = [join(root, "scripts", "build-native.mjs"), "--list", ...args];
  const { stdout, stderr, status } = spawnSync(process.execPath, command, { cwd: root, encoding: "utf8" });
  return { shapes: stdout.trim().split("\n"), error: stderr.trim(), status };
}

describe("shapes of local stages with a kernel for a whole patch", () => {
  it("are those of the published models, of the default model and of some between", () => {
    const { shapes } = list();
    expect(shapes).toContain("1024x2x64");
    expect(shapes).toContain("512x2x64");
    const file = readFileSync(join(root, "native", "cuda", "local_patch_shapes.json"), "utf8");
    const listed = JSON.parse(file) as { width: number; ff: number; head: number }[];
    expect(shapes).toEqual(listed.map(({ width, ff, head }) => `${width}x${ff}x${head}`));
    expect(list("--bundle", "models/books").shapes).toEqual(shapes);
  });

  it("are added to by name or by bundle, each once and in order", () => {
    const own = ["--shape", "width=1024,ff=2,head=64", "--shape", "width=896,ff=3,head=32", "--bundle", "models/clevr"];
    const { shapes } = list(...own);
    expect(shapes).toContain("128x4x32");
    expect(shapes.indexOf("896x3x32")).toBe(shapes.indexOf("1024x2x64") - 1);
    expect(new Set(shapes).size).toBe(shapes.length);
  });

  it.each([
    ["width=1000,ff=2,head=64", "width must be a multiple of 128, at most 1024; it is 1000"],
    ["width=2048,ff=2,head=64", "width must be a multiple of 128, at most 1024; it is 2048"],
    ["width=512,ff=5,head=64", "ff must be a whole number from 1 to 4; it is 5"],
    ["width=512,ff=2,head=48", "head must be 32, 64 or 128 and divide the width (512); it is 48"],
    ["width=512,ff=2", "head missing"],
    ["width=512,ff=2,head=64,rows=3", 'there is no "rows"'],
    ["width=512,ff=two,head=64", "ff must be a whole number"],
  ])("are refused where there can be none: %s", (shape, message) => {
    const { error, status } = list("--shape", shape);
    expect(error).toContain(message);
    expect(status).toBe(2);
  });

  it("are refused of bundles whose local stage is none, and of what is no bundle", () => {
    expect(list("--bundle", bundleDir("mamba2-mamba2")).error).toContain("must be made of transformer blocks");
    expect(list("--bundle", bundleDir("mamba2-transformer")).error).toContain("width must be a multiple of 128");
    expect(list("--bundle", "src").error).toContain("its manifest.json cannot be read");
  });

  it("go with what builds", () => {
    const command = [join(root, "scripts", "build-native.mjs"), "reference", "--shape", "width=512,ff=2,head=64"];
    expect(spawnSync(process.execPath, command, { encoding: "utf8" }).stderr).toContain("--shape and --bundle go with");
  });
});
