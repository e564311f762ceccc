import { basename } from "node:path";
import { packageOf } from "./cuda-packages.js";
import type { InstallerState } from "./open-installer.js";
import { DRIVER_LIBRARY } from "./resolve-libraries.js";

/** What is there, what is missing and how to get it, for people. */
export function describeState(dir: string, { complaint, found, missing, driver }: InstallerState): string {
  const names = [...found.map((path) => basename(path)), ...missing.map(({ name }) => name), DRIVER_LIBRARY];
  const width = Math.max(...names.map((name) => name.length));
  const line = (name: string, text: string): string => `  ${name.padEnd(width)}  ${text}`;
  const lines = [
    complaint === undefined ? `ONNX Runtime's CUDA provider: ${dir}` : `ONNX Runtime's CUDA provider: ${complaint}`,
    ...found.map((path) => line(basename(path), path)),
    ...missing.map(({ name, neededBy }) => line(name, `missing; ${basename(neededBy)} needs it`)),
    line(DRIVER_LIBRARY, driver ?? "missing; it comes with NVIDIA's driver (version 580 or newer)"),
    ...(complaint !== undefined ? ["", "To install it: mblm-server install-cuda"] : []),
    ...adviceFor(missing.map(({ name }) => name)),
  ];
  return `${lines.join("\n")}\n`;
}

function adviceFor(missing: readonly string[]): string[] {
  if (missing.length === 0) return [];
  const packages = new Map(missing.flatMap((name) => packageOf(name) ?? []).map((one) => [one.project, one.version]));
  const pinned = [...packages].map(([project, version]) => `${project}==${version}`).join(" ");
  return [
    "",
    "To get what is missing, one of:",
    "  mblm-server install-cuda --with-cuda-libraries",
    ...(pinned === "" ? [] : [`  pip install ${pinned}`]),
    "  CUDA 13 of your distribution or of NVIDIA's repository (packages cuda-libraries-13-0)",
  ];
}
