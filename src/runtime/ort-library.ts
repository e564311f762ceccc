import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import koffi from "koffi";
import { MblmError } from "../errors.js";
import { loadNativeLibrary } from "./native-library.js";
import { disableTelemetry } from "./no-telemetry.js";
import { ORT_API, ORT_API_VERSION, type OrtFunctionName } from "./ort-api-table.js";

// ONNX Runtime resolves large graphs by recursion: with koffi's usual megabyte of stack, opening them ends the process.
koffi.config({ sync_stack_size: 16 * 2 ** 20 });

/** A native address; koffi's own type for `void *` values. */
export type Pointer = unknown;
// biome-ignore lint/suspicious/noExplicitAny: FFI functions are typed by the table at run time.
type NativeFunction = (...args: any[]) => any;

/** The version of ONNX Runtime whose library is bound. Its kernels' exactness was measured: see ARCHITECTURE. */
export const PINNED_VERSION = "1.30.0";

/** ONNX Runtime's C API, bound from the shared library that the onnxruntime-node package ships. */
export interface OrtLibrary {
  readonly version: string;
  readonly api: Readonly<Record<OrtFunctionName, NativeFunction>>;
  /** Throws the message of a non-null status and releases it. */
  check(status: Pointer): void;
  /** Calls a function whose last parameter is an out pointer; returns what it wrote. */
  create(name: OrtFunctionName, ...args: unknown[]): Pointer;
}

/** ONNX Runtime's core library that the onnxruntime-node package ships. */
export function packagedLibrary(): string {
  const packageDir = dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const file =
    process.platform === "darwin"
      ? `libonnxruntime.${PINNED_VERSION}.dylib`
      : process.platform === "win32"
        ? "onnxruntime.dll"
        : "libonnxruntime.so.1";
  return join(packageDir, "bin", "napi-v6", process.platform, process.arch, file);
}

/**
 * Loads and binds the library; throws MblmError `runtime_unavailable` when it is missing or of another version.
 *
 * @param path of a copy beside provider libraries; ONNX Runtime looks for those next to itself
 */
export function loadOrtLibrary(path = packagedLibrary()): OrtLibrary {
  disableTelemetry();
  const library = loadNativeLibrary(path);
  const base = library.func("OrtGetApiBase", "void *", [])();
  const [getApi, getVersion] = koffi.decode(base, koffi.array("void *", 2)) as [Pointer, Pointer];
  const version = String(koffi.decode(getVersion, koffi.proto("const char *", []))());
  if (version !== PINNED_VERSION) {
    throw new MblmError(
      "runtime_unavailable",
      `${path} is ONNX Runtime ${version}; this server needs ${PINNED_VERSION}`,
    );
  }
  const table = koffi.decode(getApi, koffi.proto("void *", ["uint32_t"]))(ORT_API_VERSION) as Pointer;
  if (!table) throw new MblmError("runtime_unavailable", `${path} does not offer API version ${ORT_API_VERSION}`);
  const entries = Object.entries(ORT_API);
  const last = Math.max(...entries.map(([, [index]]) => index));
  const pointers = koffi.decode(table, koffi.array("void *", last + 1)) as Pointer[];
  const api = Object.fromEntries(
    entries.map(([name, [index, result, parameters]]) => [
      name,
      koffi.decode(pointers[index], koffi.proto(result, [...parameters])) as NativeFunction,
    ]),
  ) as Record<OrtFunctionName, NativeFunction>;
  return bindHelpers(version, api);
}

function bindHelpers(version: string, api: Record<OrtFunctionName, NativeFunction>): OrtLibrary {
  const check = (status: Pointer): void => {
    if (!status) return;
    const message = String(api.GetErrorMessage(status));
    api.ReleaseStatus(status);
    throw new MblmError("engine_failed", `ONNX Runtime: ${message}`);
  };
  return {
    version,
    api,
    check,
    create(name, ...args) {
      const out: [Pointer] = [null];
      check(api[name](...args, out));
      return out[0];
    },
  };
}
