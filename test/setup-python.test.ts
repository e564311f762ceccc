import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { scratchFolder } from "./scratch-folder.js";

const setup = pathToFileURL(join(import.meta.dirname, "..", "scripts", "setup.mjs")).href;

/** What `findPython` answers where `python3` and `python` are of these versions. */
function find(versions: Record<string, string>) {
  const folder = scratchFolder("pythons");
  for (const [name, version] of Object.entries(versions)) {
    writeFileSync(join(folder, name), `#!/bin/sh\necho ${version}\n`, { mode: 0o755 });
  }
  const script = join(folder, "find.mjs");
  writeFileSync(script, `import { findPython } from "${setup}";\nconsole.log(findPython());\n`);
  return spawnSync(process.execPath, [script], { encoding: "utf8", env: { PATH: folder } });
}

describe("the Python that tests are run with", () => {
  it("is the first that is new enough", () => {
    expect(find({ python3: "3.10", python: "3.12" }).stdout).toBe("python\n");
    expect(find({ python3: "3.11", python: "3.12" }).stdout).toBe("python3\n");
  });

  it("is asked for where there is none", () => {
    const { status, stderr } = find({ python3: "3.10", python: "2.7" });
    expect(status).toBe(2);
    expect(stderr).toContain("Python 3.11 or newer is needed");
  });
});
