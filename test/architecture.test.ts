import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, it } from "vitest";

const src = fileURLToPath(new URL("../src", import.meta.url));

/** Lower layers first; a folder may import itself and folders of lower layers. */
const LAYERS = [
  ["client"], // for browsers, too: nothing of the server
  ["client-node"],
  ["errors.ts", "version.ts"],
  ["core"],
  ["access", "config", "bundle", "constraints", "vqa", "metrics", "tracing"],
  ["runtime", "sampling"],
  ["state"],
  ["session", "engine"],
  ["worker"],
  ["feeding"],
  ["http"],
  ["cli", "index.ts"],
];

/** Folders that may not reach past the layer below them. */
const FORBIDDEN: Readonly<Record<string, readonly string[]>> = {
  feeding: ["engine", "runtime", "state", "sampling"],
  http: ["engine", "runtime", "state", "sampling"],
  state: ["config"],
};

/** Packages that one folder alone may import. */
const PRIVATE_PACKAGES: Readonly<Record<string, string>> = {
  "onnxruntime-node": "runtime",
  koffi: "runtime",
  undici: "runtime",
  yauzl: "runtime",
  "@eslint-community/regexpp": "constraints",
  fastify: "http",
  "@fastify/busboy": "http",
  sharp: "vqa",
  "@opentelemetry/api": "tracing",
  "@opentelemetry/core": "tracing",
  "@opentelemetry/exporter-trace-otlp-http": "tracing",
  "@opentelemetry/resources": "tracing",
  "@opentelemetry/sdk-trace-base": "tracing",
  commander: "cli",
};

/** Global things that one place alone may touch, as they are spelled in an expression. */
const PRIVATE_GLOBALS: readonly { readonly expressions: readonly string[]; readonly owner: string }[] = [
  { expressions: ["process.env"], owner: "config" },
  { expressions: ["process.exit", "process.exitCode"], owner: "cli" },
  { expressions: ["performance.now", "process.hrtime"], owner: join("core", "clock.ts") },
];

interface Module {
  /** Path below src. */
  readonly path: string;
  readonly imports: readonly string[];
  readonly expressions: readonly string[];
}

function readModules(): Module[] {
  const paths = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts"));
  return paths.map((path) => {
    const text = readFileSync(join(src, path), "utf8");
    const imports = ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
    return { path, imports, expressions: propertyAccesses(ts.createSourceFile(path, text, ts.ScriptTarget.ES2023)) };
  });
}

/** Every `a.b` of the source, comments and strings left out. */
function propertyAccesses(source: ts.SourceFile): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isPropertyAccessExpression(node)) found.push(node.getText(source));
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** The module below src that a relative import names. */
function resolveImport(from: string, name: string): string {
  return normalize(join(dirname(from), name)).replace(/\.js$/, ".ts");
}

/** Relative imports of a module that are there when it runs, but for those that it makes on demand. */
function valueImports({ path }: Module): { from: string; to: string }[] {
  const source = ts.createSourceFile(path, readFileSync(join(src, path), "utf8"), ts.ScriptTarget.ES2023);
  const names = source.statements.flatMap((statement) => {
    if (!ts.isImportDeclaration(statement) || statement.importClause?.isTypeOnly) return [];
    const bindings = statement.importClause?.namedBindings;
    const isOnlyTypes = bindings && ts.isNamedImports(bindings) && bindings.elements.every((one) => one.isTypeOnly);
    return isOnlyTypes ? [] : [(statement.moduleSpecifier as ts.StringLiteral).text];
  });
  return names.filter(isRelative).map((name) => ({ from: path, to: resolveImport(path, name) }));
}

const folderOf = (path: string): string => path.split(/[\\/]/)[0]!;
const layerOf = (folder: string): number => LAYERS.findIndex((layer) => layer.includes(folder));
const isRelative = (name: string): boolean => name.startsWith(".");
/** `@scope/name/part` and `name/part` without the part. */
const packageOf = (name: string): string =>
  name
    .split("/")
    .slice(0, name.startsWith("@") ? 2 : 1)
    .join("/");

const modules = readModules();
const edges = modules.flatMap(({ path, imports }) =>
  imports.filter(isRelative).map((name) => ({ from: path, to: resolveImport(path, name) })),
);

describe("the source tree", () => {
  it("has every folder in a layer", () => {
    expect(modules.length).toBeGreaterThan(20);
    expect(edges.length).toBeGreaterThan(modules.length);
    expect(modules.map(({ path }) => path).filter((path) => layerOf(folderOf(path)) < 0)).toEqual([]);
  });

  it("imports existing modules, and never from outside src but package.json", () => {
    const paths = new Set(modules.map(({ path }) => path));
    const manifest = join("..", "package.json");
    expect(edges.filter(({ to }) => !paths.has(to) && to !== manifest)).toEqual([]);
  });

  it("imports only from its own folder and lower layers", () => {
    const wrong = edges.filter(({ from, to }) => {
      const [source, target] = [folderOf(from), folderOf(to)];
      if (source === target || target === "..") return false;
      return layerOf(target) >= layerOf(source) || (FORBIDDEN[source]?.includes(target) ?? false);
    });
    expect(wrong).toEqual([]);
  });

  it("lets the client run outside Node", () => {
    const imports = modules.filter(({ path }) => folderOf(path) === "client").flatMap((module) => module.imports);
    const packages = imports.filter((name) => !isRelative(name)).map(packageOf);
    expect([...new Set(packages)]).toEqual(["eventsource-parser"]);
  });

  it("has no import cycles", () => {
    expect(findCycle(edges)).toBeUndefined();
  });

  it.each(Object.entries(PRIVATE_PACKAGES))("imports %s in %s only", (name, owner) => {
    const importers = modules.filter(({ imports }) => imports.some((other) => packageOf(other) === name));
    expect(importers.map(({ path }) => path).filter((path) => folderOf(path) !== owner)).toEqual([]);
  });

  it.each(PRIVATE_GLOBALS)("touches $expressions in $owner only", ({ expressions, owner }) => {
    const users = modules.filter((module) => module.expressions.some((other) => expressions.includes(other)));
    const strangers = users.map(({ path }) => path).filter((path) => path !== owner && folderOf(path) !== owner);
    expect(strangers).toEqual([]);
  });

  it("loads the OpenTelemetry SDK only when it is wanted", () => {
    const loading = modules.filter(({ path }) => path !== join("tracing", "open-telemetry.ts")).flatMap(valueImports);
    expect(loading.filter(({ to }) => to.endsWith(join("tracing", "open-telemetry.ts")))).toEqual([]);
    const parts = modules.map(({ path }) => path).filter((path) => folderOf(path) === "tracing");
    const strangers = loading.filter(({ from, to }) => parts.includes(to) && !parts.includes(from));
    expect(new Set(strangers.map(({ to }) => to))).toEqual(new Set([join("tracing", "start-tracing.ts")]));
    const started = loading.filter(({ from }) => from === join("tracing", "start-tracing.ts"));
    expect(started).toEqual([]);
  });

  it("has no barrels but the package's entries", () => {
    const barrels = modules.map(({ path }) => path).filter((path) => path.endsWith("index.ts"));
    expect(barrels.sort()).toEqual([join("client-node", "index.ts"), join("client", "index.ts"), "index.ts"]);
  });
});

/** Modules of one cycle in order, if there is any: depth-first search with a path. */
function findCycle(graph: readonly { from: string; to: string }[]): string[] | undefined {
  const targets = new Map<string, string[]>();
  for (const { from, to } of graph) targets.set(from, [...(targets.get(from) ?? []), to]);
  const isDone = new Set<string>();
  const visit = (module: string, path: string[]): string[] | undefined => {
    if (path.includes(module)) return [...path.slice(path.indexOf(module)), module];
    if (isDone.has(module)) return undefined;
    for (const target of targets.get(module) ?? []) {
      const cycle = visit(target, [...path, module]);
      if (cycle !== undefined) return cycle;
    }
    isDone.add(module);
    return undefined;
  };
  for (const module of targets.keys()) {
    const cycle = visit(module, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

describe("findCycle", () => {
  it("finds a cycle and only a cycle", () => {
    const edge = (from: string, to: string) => ({ from, to });
    expect(findCycle([edge("a", "b"), edge("a", "c"), edge("b", "c")])).toBeUndefined();
    expect(findCycle([edge("a", "b"), edge("b", "c"), edge("c", "b")])).toEqual(["b", "c", "b"]);
  });
});
