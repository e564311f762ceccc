import { type Static, type TProperties, type TSchema, Type } from "typebox";

/** A request's body: what has a default need not be given. Unknown fields are refused. Every example must run. */
export function requestBody<T extends TProperties>(id: string, properties: T, examples: readonly object[]) {
  const object = Type.Object(properties, { additionalProperties: false, $id: id, examples });
  const required = ((object as TSchema & { required?: string[] }).required ?? []).filter(
    (key) => !("default" in properties[key]!),
  );
  return { ...object, required } as unknown as typeof object;
}

/** A schema that the contract lists by its `$id`, where a route uses it. */
export function shared<T extends TSchema>(schema: T) {
  return Type.Unsafe<Static<T>>({ $ref: `${(schema as { $id?: string }).$id}#` });
}
