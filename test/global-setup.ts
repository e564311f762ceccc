import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Newest modification time under a folder, in ms. */
function newest(path: string): number {
  const info = statSync(path);
  if (!info.isDirectory()) return info.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Exports the test bundles when the exporter is newer than they are. Python: $PYTHON, else the project's environment. */
export default function setup(): void {
  const out = join(root, "test", ".bundles");
  const marker = join(out, "with-eos", "golden.json");
  const sources = ["multiscale/export", "multiscale/model", "make_test_bundles.py"].map((p) =>
    join(root, "scripts", p),
  );
  if (existsSync(marker) && statSync(marker).mtimeMs > Math.max(...sources.map(newest))) return;
  const python = process.env.PYTHON ?? join(root, ".venv", "bin", "python");
  execFileSync(python, [join(root, "scripts", "make_test_bundles.py"), "--out", out], { stdio: "inherit" });
}
