import { readFileSync } from "node:fs";

interface PackageJson {
  readonly name: string;
  readonly version: string;
}

/** The package's version, read from the package.json above src/ or dist/. */
export const VERSION: string = findVersion();

function findVersion(): string {
  for (const up of ["../package.json", "../../package.json"]) {
    try {
      const data = JSON.parse(readFileSync(new URL(up, import.meta.url), "utf8")) as PackageJson;
      if (data.name === "mblm-server") return data.version;
    } catch {
      // The other depth: bundled chunks lie in dist itself, entries one folder deeper.
    }
  }
  return "0.0.0";
}
