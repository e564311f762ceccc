import type { FastifyRequest } from "fastify";
import type { Static, TSchema } from "typebox";

/**
 * Checks data that Fastify does not, by the same rules; defaults are put in.
 *
 * @param kind `body`: as it is; `querystring`: text, whose numbers are converted
 * @throws what Fastify throws for a body that is not valid
 */
export function validated<T extends TSchema>(
  request: FastifyRequest,
  schema: T,
  kind: "body" | "querystring",
  data: unknown,
): Static<T> {
  const validate = request.compileValidationSchema(schema, kind);
  if (validate(data)) return data as Static<T>;
  throw Object.assign(new Error("The request is not valid."), { statusCode: 400, validation: validate.errors });
}
