import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Path of the operators' CPU reference, built from today's sources. */
export function referenceLibrary(): string {
  execFileSync(process.execPath, [join(root, "scripts", "build-native.mjs"), "reference"], { stdio: "inherit" });
  return join(root, "native", "build", "libmblm_ops_reference.so");
}
