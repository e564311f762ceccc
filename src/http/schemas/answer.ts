import type { TSchema } from "typebox";

/** A route's successful JSON answer. */
export function answer<T extends TSchema>(schema: T, description = "The answer.") {
  return { 200: { description, content: { "application/json": { schema } } } };
}
