import { concat, type Ir, literal, NOTHING, series } from "../ir.js";
import { literalName } from "./canonical-json.js";
import { INNER_VALUE, ITEM_SEPARATOR, map, member } from "./json-text.js";
import { childPath, type SchemaKeywords } from "./schema-keywords.js";
import type { CompileSubschema } from "./subschema.js";

/**
 * With `properties`: those, in the order of the schema, and no others; what is not in `required` may be left out.
 * Without: a map from any names to values of the schema `additionalProperties`, or to any values.
 *
 * JavaScript lists names that are array indices first, so these come before all others whatever the schema's text says.
 */
export function compileObject(keywords: SchemaKeywords, compile: CompileSubschema): Ir {
  const properties = keywords.readObject("properties");
  if (properties === undefined) return compileMap(keywords, compile);

  const others = keywords.read("additionalProperties");
  if (others !== undefined && others !== false) {
    keywords.refuse("additionalProperties", "must be false, or absent, next to properties");
  }
  const required = new Set(keywords.readStrings("required"));
  for (const name of required) {
    if (!Object.hasOwn(properties, name)) keywords.refuse("required", "names a property that is not in properties");
  }
  const path = childPath(keywords.path, "properties");
  const members = Object.entries(properties).map(([name, schema]) => ({
    ir: member(literalName(name), compile(schema, childPath(path, name))),
    isRequired: required.has(name),
  }));
  return concat([literal("{"), series(members, ITEM_SEPARATOR), literal("}")]);
}

function compileMap(keywords: SchemaKeywords, compile: CompileSubschema): Ir {
  const values = keywords.read("additionalProperties");
  const min = keywords.readCount("minProperties") ?? 0;
  const max = keywords.readCount("maxProperties") ?? Infinity;
  // Names may repeat and readers keep one of each, so only the first can be counted on.
  if (min > 1) keywords.refuse("minProperties", "must be 0 or 1");
  if (min > max) keywords.refuse("minProperties", "is greater than maxProperties");
  return map(compileValues(values, keywords, compile), min, max);
}

function compileValues(schema: unknown, keywords: SchemaKeywords, compile: CompileSubschema): Ir {
  if (schema === false) return NOTHING;
  if (schema === undefined || schema === true) return INNER_VALUE;
  return compile(schema, childPath(keywords.path, "additionalProperties"));
}
