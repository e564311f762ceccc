import type { FastifyRequest } from "fastify";
import type { Static, TSchema } from "typebox";
import type { Validate } from "./validators.js";

/**
 * Checks data that Fastify does not, by the same rules; defaults are put in.
 *
 * @param kind `body`: as it is; `querystring`: text, whose numbers are converted
 * @throws MblmError `invalid_request` naming the field
 */
export function validated<T extends TSchema>(
  request: FastifyRequest,
  schema: T,
  kind: "body" | "querystring",
  data: unknown,
): Static<T> {
  const validate = request.compileValidationSchema(schema, kind) as unknown as Validate;
  const result = validate(data);
  if (result === true) return data as Static<T>;
  throw result.error;
}
