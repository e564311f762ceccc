import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Folder of the package as it is published, built from today's sources. */
export function builtPackage(): string {
  execFileSync(process.execPath, [join(root, "scripts", "setup.mjs"), "build"], { stdio: "inherit" });
  return root;
}
