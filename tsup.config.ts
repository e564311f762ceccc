import { defineConfig } from "tsup";

export default defineConfig({
  // The engine worker is an entry of its own: the client starts it by path as a worker thread.
  entry: [
    "src/index.ts",
    "src/client/index.ts",
    "src/client-node/index.ts",
    "src/cli/main.ts",
    "src/worker/engine-thread.ts",
  ],
  format: ["esm"],
  target: "node20",
  dts: { entry: ["src/index.ts", "src/client/index.ts", "src/client-node/index.ts"] },
  sourcemap: true,
  clean: true,
  splitting: true,
});
