import { existsSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseElf, readElfFile } from "../../../src/runtime/cuda/elf-file.js";
import { scratchFolder } from "../../scratch-folder.js";
import { makeElf } from "./made-up-elf.js";

const parse = (data: Buffer) => parseElf((offset, length) => data.subarray(offset, offset + length));

describe("an ELF library's dynamic section", () => {
  it("names what it needs, in order, and itself", () => {
    const data = makeElf({ needed: ["libb.so.2", "liba.so.1"], soname: "libown.so.3" });
    expect(parse(data)).toEqual({ machine: "x86-64", needed: ["libb.so.2", "liba.so.1"], soname: "libown.so.3" });
  });

  it("may name nothing", () => {
    expect(parse(makeElf({}))).toEqual({ machine: "x86-64", needed: [], soname: undefined });
  });

  it("tells other processors' libraries", () => {
    expect(parse(makeElf({ machine: 183 }))?.machine).toBe("aarch64");
    expect(parse(makeElf({ machine: 21 }))?.machine).toBe("other");
  });

  it.each([
    ["nothing", Buffer.alloc(0)],
    ["a text", Buffer.from("INPUT(libcudart.so.13)".repeat(10))],
    ["a 32-bit library", makeElf({ fileClass: 1 })],
    ["a library cut off in its dynamic section", makeElf({ needed: ["liba.so"] }).subarray(0, 180)],
  ])("is not that of %s", (_, data) => {
    expect(parse(data)).toBeUndefined();
  });

  it("is read from a file", () => {
    const path = join(scratchFolder("elf"), "lib.so");
    writeFileSync(path, makeElf({ needed: ["liba.so.1"] }));
    expect(readElfFile(path)?.needed).toEqual(["liba.so.1"]);
  });

  const packageDir = dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const real = join(packageDir, "bin", "napi-v6", "linux", "x64", "libonnxruntime.so.1");
  it.skipIf(!existsSync(real))("is read from a real library", () => {
    const library = readElfFile(real)!;
    expect(library).toMatchObject({ machine: "x86-64", soname: "libonnxruntime.so.1" });
    expect(library.needed).toContain("libc.so.6");
  });
});
