import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import satisfies from "spdx-satisfies";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Licences that ask for no more than that they are named. */
const ALLOWED = ["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD", "BlueOak-1.0.0", "Unlicense"];

/** Packages of other licences, each with the reason why it may be there. */
const EXCEPTIONS: readonly { readonly pattern: RegExp; readonly allowed: readonly string[]; readonly why: string }[] = [
  {
    pattern: /^@img\/sharp-(libvips-.+|win32-.+|wasm32)$/,
    allowed: [...ALLOWED, "LGPL-3.0-or-later"],
    why: "libvips, unmodified, as a shared library that can be replaced: what the LGPL asks of those who only use it",
  },
];

/**
 * Packages that would run a script when they are installed; .npmrc has none run, and they work without. ONNX Runtime's fetches CUDA's
 * provider from another host, and fails the whole installation where that cannot be reached.
 */
const WITH_SCRIPTS = ["koffi", "onnxruntime-node"];

interface LockedPackage {
  readonly version: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
  readonly hasInstallScript?: boolean;
}

interface Dependency extends LockedPackage {
  readonly name: string;
  readonly path: string;
}

/** What is installed where the server runs, on whatever platform. */
function productionDependencies(): Dependency[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  return Object.entries(lock.packages as Record<string, LockedPackage>)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path, locked]) => ({ ...locked, path, name: path.slice(path.lastIndexOf("node_modules/") + 13) }));
}

/** What is wrong with a package's licence; undefined when nothing is. */
function complaint({ name, license }: Pick<Dependency, "name" | "license">): string | undefined {
  if (license === undefined) return `${name}: no licence`;
  const allowed = EXCEPTIONS.find(({ pattern }) => pattern.test(name))?.allowed ?? ALLOWED;
  try {
    return satisfies(license, [...allowed]) ? undefined : `${name}: ${license}`;
  } catch {
    return `${name}: ${license} is no licence expression`;
  }
}

const dependencies = productionDependencies();
const installed = dependencies.filter(({ path }) => existsSync(join(root, path, "package.json")));

describe("what the server depends on", () => {
  it("has licences that are allowed, or a named exception", () => {
    expect(dependencies.length).toBeGreaterThan(100);
    expect(dependencies.map(complaint).filter((problem) => problem !== undefined)).toEqual([]);
  });

  it("says in its packages what the lock file says", () => {
    expect(installed.length).toBeGreaterThan(80);
    const wrong = installed.filter(({ path, version, license }) => {
      const manifest = JSON.parse(readFileSync(join(root, path, "package.json"), "utf8"));
      return manifest.version !== version || manifest.license !== license;
    });
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  it("has no exception that is not needed", () => {
    for (const { pattern, why } of EXCEPTIONS) {
      const excepted = dependencies.filter(({ name }) => pattern.test(name));
      expect(excepted.some(({ license }) => !satisfies(license!, ALLOWED))).toBe(true);
      expect(why.length).toBeGreaterThan(20);
    }
  });

  it("is pinned by content, and runs no script when it is installed", () => {
    expect(dependencies.filter(({ integrity }) => integrity === undefined).map(({ path }) => path)).toEqual([]);
    const scripted = dependencies.filter(({ hasInstallScript }) => hasInstallScript).map(({ name }) => name);
    expect(scripted.sort()).toEqual(WITH_SCRIPTS);
    // A setting that every npm knows: of others it warns at each command, and will fail some day.
    expect(readFileSync(join(root, ".npmrc"), "utf8")).toBe("ignore-scripts=true\n");
  });
});

describe("the audit", () => {
  it.each([
    [{ name: "a", license: "MIT" }, undefined],
    [{ name: "a", license: "(MIT OR GPL-3.0-only)" }, undefined],
    [{ name: "@img/sharp-libvips-linux-x64", license: "LGPL-3.0-or-later" }, undefined],
    [{ name: "a", license: "LGPL-3.0-or-later" }, "a: LGPL-3.0-or-later"],
    [{ name: "a", license: "GPL-3.0-only" }, "a: GPL-3.0-only"],
    [{ name: "a", license: "MIT AND GPL-3.0-only" }, "a: MIT AND GPL-3.0-only"],
    [{ name: "a", license: "SEE LICENSE IN EULA" }, "a: SEE LICENSE IN EULA is no licence expression"],
    [{ name: "a" }, "a: no licence"],
  ])("%o: %s", (dependency, expected) => {
    expect(complaint(dependency)).toBe(expected);
  });
});
