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

/** What may be null, without a default: for fields of objects inside a body. */
export function nullable<T extends TSchema>(schema: T) {
  return Type.Unsafe<Static<T> | null>(orNull(schema));
}

export function isLeftOut(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

interface Keywords {
  readonly type?: string;
  readonly anyOf?: readonly object[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
}

function orNull(schema: TSchema): TSchema {
  const { const: value, ...rest } = schema as Keywords & TSchema;
  const { type, anyOf, enum: values } = rest;
  const listed = values ?? (value === undefined ? undefined : [value]);
  return {
    ...rest,
    ...(type && { type: [type, "null"] }),
    ...(anyOf && { anyOf: [...anyOf, { type: "null" }] }),
    ...(listed && { enum: [...listed, null] }),
  } as TSchema;
}

/** The body with `null` replaced by the default wherever a field has another one. */
export function withDefaults<T extends object>(schema: { properties: Record<string, unknown> }, body: T): T {
  const result = { ...body } as Record<string, unknown>;
  for (const [key, property] of Object.entries(schema.properties)) {
    if (result[key] === null) result[key] = (property as { default?: unknown }).default ?? null;
  }
  return result as T;
}
