import koffi from "koffi";
import type { OrtLibrary, Pointer } from "./ort-library.js";

const COUNT = { input: "SessionGetInputCount", output: "SessionGetOutputCount" } as const;
const NAME = { input: "SessionGetInputName", output: "SessionGetOutputName" } as const;

/** Names of a session's inputs or outputs, in the graph's order. */
export function portNames(ort: OrtLibrary, session: Pointer, kind: "input" | "output"): string[] {
  const allocator = ort.create("GetAllocatorWithDefaultOptions");
  return Array.from({ length: Number(ort.create(COUNT[kind], session)) }, (_, index) => {
    const text = ort.create(NAME[kind], session, index, allocator);
    const decoded = String(koffi.decode(text, "char", -1));
    ort.check(ort.api.AllocatorFree(allocator, text));
    return decoded;
  });
}
