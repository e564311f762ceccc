import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

it("the built package has the entry mblm-server/client", () => {
  const program = `import { MblmClient, MblmApiError } from "mblm-server/client";
    new MblmClient({ baseUrl: "http://127.0.0.1:9", maxRetries: 0 }).models().catch((error) => {
      console.log(error instanceof MblmApiError, error.code);
    });`;
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const output = execFileSync("node", ["--input-type=module", "--eval", program], { cwd: root, encoding: "utf8" });
  expect(output).toBe("true connection_failed\n");
});
