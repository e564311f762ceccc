import Compile from "typebox/compile";
import { MblmError } from "../errors.js";
import { FORMAT_VERSION, type Manifest, ManifestSchema } from "./manifest.js";
import { manifestProblem } from "./manifest-problem.js";

const validator = Compile(ManifestSchema);

/**
 * Parses and checks a manifest: what it names is there, and fits together; what it says follows from what it has.
 *
 * @throws MblmError `bundle_invalid` that names the first offending path
 */
export function parseManifest(text: string, source: string): Manifest {
  const data = parseJson(text, source);
  const version = (data as { format_version?: unknown } | null)?.format_version;
  if (typeof version === "number" && version !== FORMAT_VERSION) {
    throw new MblmError(
      "bundle_invalid",
      `${source}: format_version ${version} is not supported (this server reads ${FORMAT_VERSION})`,
    );
  }
  if (!validator.Check(data)) {
    const problem = validator.Errors(data)[0];
    throw new MblmError(
      "bundle_invalid",
      `${source}: ${problem?.instancePath || "/"} ${problem?.message ?? "is wrong"}`,
    );
  }
  const problem = manifestProblem(data);
  if (problem !== undefined) throw new MblmError("bundle_invalid", `${source}: ${problem}`);
  return data;
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MblmError("bundle_invalid", `${source} is not JSON`, { cause });
  }
}
