import { MblmError } from "../errors.js";
import type { Backend } from "./backend.js";
import { CApiBackend } from "./c-api-backend.js";
import { NodeBackend } from "./node-backend.js";

export type BackendChoice = "auto" | "c-api" | "node";

export interface SelectedBackend {
  readonly backend: Backend;
  /** Why `auto` did not take the C API, when it did not. */
  readonly fallbackReason?: string;
}

/** `auto` takes the C API where it can be bound and says why where it cannot. */
export function selectBackend(choice: BackendChoice): SelectedBackend {
  if (choice === "node") return { backend: new NodeBackend() };
  try {
    return { backend: new CApiBackend() };
  } catch (thrown) {
    const error = MblmError.from(thrown, "runtime_unavailable");
    if (choice === "c-api") throw error;
    return { backend: new NodeBackend(), fallbackReason: error.message };
  }
}
