import { describe, expect, it } from "vitest";
import { LibrarySearch } from "../../../src/runtime/cuda/library-search.js";
import { parseLoaderCache } from "../../../src/runtime/cuda/loader-cache.js";
import { resolveLibraries } from "../../../src/runtime/cuda/resolve-libraries.js";
import { makeElf } from "./made-up-elf.js";
import { makeFiles, makeLoaderCache } from "./made-up-files.js";

const NAME = "libcudart.so.13";
const LIBRARY = makeElf({ soname: NAME });
const OWN = "/own";
const SITE = "/opt/python/lib/python3.12/site-packages";

/** The places of a library, as they are searched. */
const PLACES = [
  `${OWN}/${NAME}`,
  `/first/${NAME}`,
  `/second/${NAME}`,
  `/usr/lib/cached/${NAME}`,
  `/usr/local/cuda-13.10/lib64/${NAME}`,
  `/usr/local/cuda-13.9/targets/x86_64-linux/lib/${NAME}`,
  `${SITE}/nvidia/cu13/lib/${NAME}`,
  `/home/me/.local/lib/python3.11/site-packages/nvidia/cuda_runtime/lib/${NAME}`,
  `/usr/lib/x86_64-linux-gnu/${NAME}`,
];
const ENVIRONMENT = { LD_LIBRARY_PATH: "/first:/second", PATH: "/bin:/opt/python/bin", HOME: "/home/me" };
const CACHE = makeLoaderCache([{ name: NAME, path: `/usr/lib/cached/${NAME}` }]);

function search(paths: readonly string[], library = LIBRARY): LibrarySearch {
  const libraries = Object.fromEntries(paths.map((path) => [path, library]));
  const files = makeFiles({ "/etc/ld.so.cache": CACHE, "/opt/python/bin/python3": Buffer.from(""), ...libraries });
  return new LibrarySearch(files, ENVIRONMENT, OWN);
}

describe("the search for a library", () => {
  it.each(PLACES.map((path, i) => [path, i] as const))("finds %s when it is in no earlier place", (path, i) => {
    expect(search(PLACES.slice(i)).find(NAME)).toBe(path);
  });

  it("says when a library is nowhere", () => {
    expect(search(PLACES).find("libcufft.so.12")).toBeUndefined();
    expect(search([]).find(NAME)).toBeUndefined();
  });

  it("passes over libraries of other processors, and what is no library", () => {
    expect(search(PLACES, makeElf({ machine: 183 })).find(NAME)).toBeUndefined();
    expect(search(PLACES, Buffer.from("INPUT(libcudart.so.13.0)")).find(NAME)).toBeUndefined();
  });
});

describe("the dynamic loader's cache", () => {
  const entries = [
    { name: "liba.so.1", path: "/lib32/liba.so.1", flags: 3 },
    { name: "liba.so.1", path: "/lib/liba.so.1" },
    { name: "libb.so.2", path: "/lib/libb.so.2" },
  ];

  it("has the libraries of this kind of processor", () => {
    expect(parseLoaderCache(makeLoaderCache(entries))).toEqual([
      { name: "liba.so.1", path: "/lib/liba.so.1" },
      { name: "libb.so.2", path: "/lib/libb.so.2" },
    ]);
  });

  it("may have another format in front", () => {
    const old = Buffer.concat([Buffer.from("ld.so-1.7.0\0\0\0\0\0\0"), makeLoaderCache(entries)]);
    expect(parseLoaderCache(old)).toHaveLength(2);
  });

  it("is empty when it is of an unknown format or cut off", () => {
    expect(parseLoaderCache(Buffer.from("ld.so-1.7.0"))).toEqual([]);
    expect(parseLoaderCache(makeLoaderCache(entries).subarray(0, 30))).toEqual([]);
    expect(parseLoaderCache(makeLoaderCache(entries).subarray(0, 48 + 24))).toHaveLength(0);
  });
});

describe("what libraries need", () => {
  const elf = (...needed: string[]): Buffer => makeElf({ needed });
  const resolve = (contents: Record<string, Buffer>, ...roots: string[]) => {
    const files = makeFiles(contents);
    return resolveLibraries(roots, new LibrarySearch(files, {}, OWN), files);
  };

  it("comes before them, once, without the system's own", () => {
    const resolved = resolve(
      {
        "/own/provider.so": elf("libcublas.so.13", "libcudart.so.13", "libc.so.6", "libstdc++.so.6"),
        "/own/ops.so": elf("libcudart.so.13", "libm.so.6"),
        "/own/libcublas.so.13": elf("libcublasLt.so.13", "libcudart.so.13"),
        "/own/libcublasLt.so.13": elf("libdl.so.2"),
        "/own/libcudart.so.13": elf("ld-linux-x86-64.so.2"),
      },
      "/own/provider.so",
      "/own/ops.so",
    );
    expect(resolved.missing).toEqual([]);
    expect(resolved.paths).toEqual(["/own/libcublasLt.so.13", "/own/libcudart.so.13", "/own/libcublas.so.13"]);
  });

  it("is named where it is missing, with who needs it", () => {
    const resolved = resolve(
      {
        "/own/provider.so": elf("libcublas.so.13", "libcurand.so.10"),
        "/own/libcublas.so.13": elf("libcublasLt.so.13"),
      },
      "/own/provider.so",
    );
    expect(resolved.paths).toEqual(["/own/libcublas.so.13"]);
    expect(resolved.missing).toEqual([
      { name: "libcublasLt.so.13", neededBy: "/own/libcublas.so.13" },
      { name: "libcurand.so.10", neededBy: "/own/provider.so" },
    ]);
  });

  it("may be mutual, and may be one of the roots", () => {
    const resolved = resolve(
      {
        "/own/a.so": elf("libx.so", "b.so"),
        "/own/b.so": makeElf({ soname: "b.so", needed: ["libx.so"] }),
        "/own/libx.so": elf("liby.so"),
        "/own/liby.so": elf("libx.so"),
      },
      "/own/a.so",
      "/own/b.so",
    );
    expect(resolved).toEqual({ paths: ["/own/liby.so", "/own/libx.so"], missing: [] });
  });
});
