import { type Static, type TSchema, Type } from "typebox";

/**
 * A field with a default. Clients that send `null` for what they do not set mean the default, too: `withDefaults` puts it
 * there, so the type has no null.
 */
export function field<T extends TSchema>(schema: T, defaultValue: Static<T>, description?: string) {
  return Type.Unsafe<Static<T>>({ ...orNull(schema), default: defaultValue, ...(description ? { description } : {}) });
}

/** A field that may be absent or null. */
export function optional<T extends TSchema>(schema: T, description?: string) {
  return Type.Unsafe<Static<T> | null>({
    ...orNull(schema),
    default: null,
    ...(description ? { description } : {}),
  });
}

function orNull(schema: TSchema): TSchema {
  const { type, anyOf } = schema as { type?: string; anyOf?: TSchema[] };
  if (anyOf !== undefined) return { ...schema, anyOf: [...anyOf, { type: "null" }] } as TSchema;
  return { ...schema, type: [type, "null"] } as TSchema;
}

/** The body with `null` replaced by the default wherever a field has another one. */
export function withDefaults<T extends object>(schema: { properties: Record<string, unknown> }, body: T): T {
  const result = { ...body } as Record<string, unknown>;
  for (const [key, property] of Object.entries(schema.properties)) {
    if (result[key] === null) result[key] = (property as { default?: unknown }).default ?? null;
  }
  return result as T;
}
