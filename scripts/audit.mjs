// Asks the npm registry for known vulnerabilities of what the server depends on. A registry that does not answer such
// questions (a mirror, or none at all) is not a failure, but it is said.
import { spawnSync } from "node:child_process";
import { root } from "./setup.mjs";

const SERIOUS = ["high", "critical"];
const SECONDS = 60;

const { stdout } = spawnSync("npm", ["audit", "--omit=dev", "--json"], {
  cwd: root,
  encoding: "utf8",
  timeout: SECONDS * 1000,
});
const report = parse(stdout);
if (report?.metadata?.vulnerabilities === undefined) {
  console.log(`not audited: ${report?.message ?? "the registry did not answer"}`);
} else {
  const found = Object.values(report.vulnerabilities);
  for (const { name, severity, range } of found) console.log(`${severity}: ${name} ${range}`);
  console.log(`${found.length} vulnerable of ${report.metadata.dependencies.prod} packages`);
  if (found.some(({ severity }) => SERIOUS.includes(severity))) process.exitCode = 1;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
