import { execFile } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";
import { beforeAll, expect, it } from "vitest";
import { builtPackage } from "../built-package.js";
import { scratchFolder } from "../scratch-folder.js";
import { chunk, DONE, events, LAST, useScriptedServer } from "./scripted-server.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
const server = useScriptedServer();

/** A project that has installed the package, built as `npm run build` does, and what the client depends on. */
const project = scratchFolder("mblm-client");
const installed = join(project, "node_modules", "mblm-server");

beforeAll(() => {
  mkdirSync(installed, { recursive: true });
  cpSync(join(builtPackage(), "dist"), join(installed, "dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(installed, "package.json"));
  symlinkSync(join(root, "node_modules", "eventsource-parser"), join(project, "node_modules", "eventsource-parser"));
  writeFileSync(join(project, "package.json"), '{"type":"module"}');
}, 120_000);

const PROGRAM = `
import { MblmApiError, MblmClient, type StreamEnd } from "mblm-server/client";

const client = new MblmClient({ baseUrl: process.argv[2]!, apiKey: "k", maxRetries: 0 });
const stream = client.streamText({ prompt: Uint8Array.of(120), maxTokens: 2, stop: [Uint8Array.of(10), "end"] });
let text = "";
for await (const piece of stream) text += piece.toUpperCase();
const end: StreamEnd | undefined = stream.result;
const error: unknown = await client.models().catch((thrown: unknown) => thrown);
if (!(error instanceof MblmApiError)) throw error;
console.log(JSON.stringify([text, end?.finishReason, error.status]));
`;
const MISTAKES = `
import { MblmClient } from "mblm-server/client";
const client = new MblmClient({ baseUrl: "" });
client.streamText({ prompt: "x", n: 2 });
client.complete({ prompt: "x", max_tokens: 2 });
client.scoreStream(Uint8Array.of(1), { return: "summary" });
`;

it("is imported by its name, and works", async () => {
  server.script(events(chunk({ text: "ab" }), LAST, DONE));
  const { outputText } = ts.transpileModule(PROGRAM, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  writeFileSync(join(project, "program.js"), outputText);
  const { stdout } = await run(process.execPath, ["program.js", server.url], { cwd: project });
  expect(JSON.parse(stdout)).toEqual(["AB", "length", 418]);
  expect(JSON.parse(server.received[0]!.body.toString())).toMatchObject({ prompt: [120], stop: [[10], "end"] });
});

it.each([
  ["node16", ts.ModuleKind.Node16, ts.ModuleResolutionKind.Node16],
  ["bundler", ts.ModuleKind.ESNext, ts.ModuleResolutionKind.Bundler],
  ["node10", ts.ModuleKind.ESNext, ts.ModuleResolutionKind.Node10],
])("has types by %s resolution", (_, module, moduleResolution) => {
  const check = (text: string): string[] => {
    const file = join(project, "program.ts");
    writeFileSync(file, `declare const process: { argv: string[] };\n${text}\nexport {};\n`);
    const program = ts.createProgram([file], {
      target: ts.ScriptTarget.ES2022,
      lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
      types: [],
      module,
      moduleResolution,
      strict: true,
      noEmit: true,
    });
    return ts.getPreEmitDiagnostics(program).map(({ file: source, start, messageText }) => {
      const line = source?.getLineAndCharacterOfPosition(start!).line;
      return `${line}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
    });
  };
  expect(check(PROGRAM)).toEqual([]);
  expect(check(MISTAKES).map((message) => message.split(":")[0])).toEqual(["4", "5", "6"]);
});

it("loads nothing but itself and its parser", () => {
  const found = new Set<string>();
  const visit = (file: string): void => {
    const text = readFileSync(file, "utf8");
    for (const { fileName } of ts.preProcessFile(text, true, true).importedFiles) {
      if (fileName.startsWith(".")) visit(join(dirname(file), fileName));
      else found.add(fileName);
    }
  };
  visit(join(installed, "dist", "client", "index.js"));
  expect([...found]).toEqual(["eventsource-parser"]);
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(dependencies["eventsource-parser"]).toMatch(/^\d+\.\d+\.\d+$/);
});
