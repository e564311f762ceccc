import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { readElfFile } from "../../../src/runtime/cuda/elf-file.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

it("the shipped library of CUDA operators was built from these sources", () => {
  execFileSync(process.execPath, [join(root, "scripts", "build-native.mjs"), "--check"], { stdio: "pipe" });
});

it("the shipped library of CUDA operators needs no CUDA library but the driver that a device has", () => {
  const library = readElfFile(join(root, "native/prebuilt/linux-x64/libmblm_ops_cuda.so"));
  expect(library?.machine).toBe("x86-64");
  const systems = /^(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|ld-linux-x86-64)\.so\.\d+$/;
  expect(library?.needed.filter((name) => !systems.test(name))).toEqual([]);
});
