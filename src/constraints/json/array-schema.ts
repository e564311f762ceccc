import { concat, EMPTY, type Ir, literal, NOTHING, optional, repeat } from "../ir.js";
import { MAX_PREFIX_ITEMS } from "../limits.js";
import { array, INNER_VALUE, ITEM_SEPARATOR } from "./json-text.js";
import { childPath, type SchemaKeywords } from "./schema-keywords.js";
import type { CompileSubschema } from "./subschema.js";

/** `items`, `prefixItems`, `minItems`, `maxItems`. Where `items` is absent, nothing follows `prefixItems`. */
export function compileArray(keywords: SchemaKeywords, compile: CompileSubschema): Ir {
  const prefix = keywords.readList("prefixItems");
  const min = keywords.readCount("minItems") ?? 0;
  const max = keywords.readCount("maxItems") ?? Infinity;
  if (min > max) keywords.refuse("minItems", "is greater than maxItems");
  const rest = compileRest(keywords, prefix === undefined ? INNER_VALUE : NOTHING, compile);
  if (prefix === undefined) return array(rest, min, max);

  if (prefix.length > MAX_PREFIX_ITEMS) keywords.refuse("prefixItems", `has more than ${MAX_PREFIX_ITEMS} schemas`);
  const path = childPath(keywords.path, "prefixItems");
  const first = prefix.map((schema, i) => compile(schema, childPath(path, i)));
  return tuple(first, rest, min, max);
}

/** The items that have no schema of their own in `prefixItems`. */
function compileRest(keywords: SchemaKeywords, fallback: Ir, compile: CompileSubschema): Ir {
  const items = keywords.read("items");
  if (items === undefined) return fallback;
  return items === false ? NOTHING : compile(items, childPath(keywords.path, "items"));
}

/** An array of `min` to `max` items: those of `prefix` in order, then any number of `rest`. */
function tuple(prefix: readonly Ir[], rest: Ir, min: number, max: number): Ir {
  const unlessEnough = (numPresent: number, more: Ir): Ir => (numPresent < min ? more : optional(more));
  const after = (numPresent: number): Ir => {
    if (numPresent >= max) return EMPTY;
    const item = prefix[numPresent];
    const more =
      item === undefined
        ? repeat(rest, Math.max(1, min - numPresent), max - numPresent, ITEM_SEPARATOR)
        : concat([item, after(numPresent + 1)]);
    return unlessEnough(numPresent, numPresent === 0 ? more : concat([ITEM_SEPARATOR, more]));
  };
  return concat([literal("["), after(0), literal("]")]);
}
