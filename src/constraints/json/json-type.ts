/** The values of the keyword `type`. */
export type JsonType = "object" | "array" | "string" | "integer" | "number" | "boolean" | "null";

export const JSON_TYPES: readonly JsonType[] = ["object", "array", "string", "integer", "number", "boolean", "null"];

/** The type whose values a keyword restricts, where there is exactly one. */
const TYPE_OF_KEYWORD: ReadonlyMap<string, JsonType> = new Map([
  ["properties", "object"],
  ["required", "object"],
  ["additionalProperties", "object"],
  ["minProperties", "object"],
  ["maxProperties", "object"],
  ["items", "array"],
  ["prefixItems", "array"],
  ["minItems", "array"],
  ["maxItems", "array"],
  ["pattern", "string"],
  ["format", "string"],
  ["minLength", "string"],
  ["maxLength", "string"],
]);

/** The types that the keywords of a schema without `type` speak of. */
export function inferTypes(keywords: readonly string[]): readonly JsonType[] {
  return [...new Set(keywords.flatMap((keyword) => TYPE_OF_KEYWORD.get(keyword) ?? []))];
}

export function isOfType(value: unknown, type: JsonType): boolean {
  switch (type) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}
