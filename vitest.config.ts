import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // What a test waits for comes at once, or on a busy machine later: the limit only ends a test that hangs.
    expect: { poll: { timeout: 50_000 } },
    // Two engine threads at once are enough for a two-core machine.
    maxWorkers: 2,
  },
});
