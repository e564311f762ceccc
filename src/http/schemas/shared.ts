import { type Static, type TProperties, type TSchema, Type } from "typebox";

/** A request's body. Every example must run. */
export function requestBody<T extends TProperties>(id: string, properties: T, examples: readonly object[]) {
  return fields(properties, { $id: id, examples });
}

/** What a client gives, in a body, a query or a form: what has a default need not be there. Unknown fields are refused. */
export function fields<T extends TProperties>(properties: T, options: object = {}) {
  const object = Type.Object(properties, { additionalProperties: false, ...options });
  const required = ((object as TSchema & { required?: string[] }).required ?? []).filter(
    (key) => !("default" in properties[key]!),
  );
  return { ...object, required } as unknown as typeof object;
}

/** A schema that the contract lists by its `$id`, where a route uses it. */
export function shared<T extends TSchema>(schema: T) {
  return Type.Unsafe<Static<T>>({ $ref: `${(schema as { $id?: string }).$id}#` });
}
