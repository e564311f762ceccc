import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";

/** @throws MblmError `model_not_found` unless the name is left out or the served model's */
export function requireModel(name: string | null | undefined, info: ModelInfo): void {
  if (name === undefined || name === null || name === info.id) return;
  throw new MblmError("model_not_found", `model: ${name} is not served here; ${info.id} is`, { field: "model" });
}
