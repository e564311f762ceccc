// `npm start`: installs what is missing, builds, and serves the default model. Arguments go to `mblm-server serve`.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { build, installPackages, requireNode, root } from "./setup.mjs";

requireNode();
await installPackages();
await build();
const server = spawn(process.execPath, [join(root, "dist", "cli", "main.js"), "serve", ...process.argv.slice(2)], {
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => server.kill(signal));
server.on("exit", (code) => process.exit(code ?? 1));
