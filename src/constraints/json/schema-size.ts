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

/** Adds the values inside a list or object to `below`, not many more than allowed. Returns the length of the names. */
function gather(value: object, below: unknown[]): number {
  if (Array.isArray(value)) {
    for (const item of value.slice(0, MAX_SCHEMA_SIZE)) below.push(item);
    return 0;
  }
  let length = 0;
  // Unlike Object.entries, this makes no pair of every name before the bound is known to hold.
  for (const name in value) {
    length += name.length;
    below.push((value as Readonly<Record<string, unknown>>)[name]);
    if (length > MAX_SCHEMA_SIZE) break;
  }
  return length;
}
