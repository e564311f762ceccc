import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "tsup";

const root = fileURLToPath(new URL("../..", import.meta.url));
// Below node_modules, so that the compiled thread finds the packages it imports.
const outDir = `${root}node_modules/.cache/mblm-server-test`;

/** Compiles the thread entry from source, so that tests never run an old build. */
export async function compileThread(): Promise<URL> {
  await build({
    config: false,
    entry: { "engine-thread": `${root}src/worker/engine-thread.ts` },
    outDir,
    format: "esm",
    target: "node20",
    // No package.json of "type": "module" applies below node_modules.
    outExtension: () => ({ js: ".mjs" }),
    silent: true,
  });
  return pathToFileURL(`${outDir}/engine-thread.mjs`);
}
