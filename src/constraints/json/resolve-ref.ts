import type { SchemaKeywords } from "./schema-keywords.js";

/**
 * The schema that `$ref` names, which must lie in `$defs` or `definitions` of the whole schema.
 *
 * @param root the whole schema
 */
export function resolveRef(keywords: SchemaKeywords, root: unknown): unknown {
  const [start, ...names] = decodePointer(keywords, keywords.readString("$ref")!);
  if (start !== "#" || names.length < 2 || (names[0] !== "$defs" && names[0] !== "definitions")) {
    keywords.refuse("$ref", "must point into #/$defs or #/definitions");
  }
  let schema: unknown = root;
  for (const name of names) {
    if (typeof schema !== "object" || schema === null || !Object.hasOwn(schema, name)) {
      return keywords.refuse("$ref", "points to nothing");
    }
    schema = (schema as Readonly<Record<string, unknown>>)[name];
  }
  return schema;
}

/** The parts of a JSON pointer in URI form, RFC 6901. */
function decodePointer(keywords: SchemaKeywords, reference: string): string[] {
  try {
    return reference.split("/").map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
  } catch {
    return keywords.refuse("$ref", "is not a JSON pointer");
  }
}
