import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const scripts = join(root, "scripts");

/** Newest modification time under a folder, in ms. */
function newest(path: string): number {
  const info = statSync(path);
  if (!info.isDirectory()) return info.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/**
 * Runs a script when what it makes is missing or older than its sources. Python: $PYTHON, else the project's environment.
 *
 * @param marker the file that is written last, below `out`
 */
function make(script: string, sources: readonly string[], out: string, marker: string): void {
  const folder = join(root, "test", out);
  const made = join(folder, marker);
  const newestSource = Math.max(...[script, ...sources].map((path) => newest(join(scripts, path))));
  if (existsSync(made) && statSync(made).mtimeMs > newestSource) return;
  const python = process.env.PYTHON ?? join(root, ".venv", "bin", "python");
  execFileSync(python, [join(scripts, script), "--out", folder], { stdio: "inherit" });
}

/** What the tests read that Python makes. */
export default function setup(): void {
  const model = ["multiscale/export", "multiscale/model", "multiscale/vqa"];
  make("make_test_bundles.py", model, ".bundles", "mamba2-mamba2/golden.json");
  make(
    "make_image_fixtures.py",
    ["multiscale/vqa/preprocess.py", "multiscale/vqa/aligned_jpeg.py"],
    ".images",
    "expected.json",
  );
}
