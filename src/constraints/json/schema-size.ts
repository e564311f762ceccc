import type { CompileBudget } from "../compile-budget.js";
import { MAX_SCHEMA_DEPTH, MAX_SCHEMA_SIZE } from "../limits.js";

/**
 * Refuses a schema that is too large or too deep for the recursive functions that read it. It does not recurse itself,
 * and it stops at the bound.
 *
 * @param schema a JSON value
 */
export function checkSchemaSize(schema: unknown, budget: CompileBudget): void {
  let level: unknown[] = [schema];
  let size = 0;
  for (let depth = 1; level.length > 0; depth++) {
    budget.check(depth, MAX_SCHEMA_DEPTH, "levels of a schema");
    const below: unknown[] = [];
    for (const value of level) {
      size += typeof value === "string" ? 1 + value.length : 1;
      if (typeof value === "object" && value !== null) size += gather(value, below);
      budget.check(size + below.length, MAX_SCHEMA_SIZE, "values and characters of a schema");
    }
    level = below;
  }
}

/** Adds the values inside a list or object to `below`, no more of them than are allowed; returns the length of names. */
function gather(value: object, below: unknown[]): number {
  let length = 0;
  // Unlike Object.entries, this copies nothing for what may be a huge list.
  for (const name in value) {
    if (!Array.isArray(value)) length += name.length;
    if (below.push((value as Readonly<Record<string, unknown>>)[name]) > MAX_SCHEMA_SIZE) break;
  }
  return length;
}
