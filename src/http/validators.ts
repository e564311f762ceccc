import { Ajv, type ValidateFunction } from "ajv";

/**
 * Compiles the checks of requests, with the schemas that the contract shares between routes.
 *
 * Bodies are taken as they are: nothing is dropped or converted in silence, an unknown field or a number in quotes is an
 * error. Queries and paths are text, so their numbers are converted.
 */
export function validatorCompiler(sharedSchemas: readonly object[]) {
  const create = (coerceTypes: boolean): Ajv => {
    const ajv = new Ajv({ useDefaults: true, coerceTypes, allowUnionTypes: true });
    for (const schema of sharedSchemas) ajv.addSchema(schema);
    return ajv;
  };
  const bodies = create(false);
  const texts = create(true);
  return ({ schema, httpPart }: { schema: unknown; httpPart?: string }): ValidateFunction =>
    (httpPart === "body" ? bodies : texts).compile(schema as object);
}
