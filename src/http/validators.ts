import { Ajv } from "ajv";
import type { MblmError } from "../errors.js";
import { invalidRequest } from "./schemas/invalid-request.js";

/** Puts defaults into the data and says what is wrong with it: `invalid_request`, naming the field. */
export type Validate = (data: unknown) => true | { readonly error: MblmError };

/**
 * Compiles the checks of requests, with the schemas that the contract shares between routes.
 *
 * Bodies are taken as they are: nothing is dropped or converted in silence, an unknown field or a number in quotes is an
 * error. Queries and paths are text, so their numbers are converted.
 */
export function validatorCompiler(sharedSchemas: readonly object[]) {
  const create = (coerceTypes: boolean): Ajv => {
    const ajv = new Ajv({ useDefaults: true, coerceTypes, allowUnionTypes: true, verbose: true });
    for (const schema of sharedSchemas) ajv.addSchema(schema);
    return ajv;
  };
  const bodies = create(false);
  const texts = create(true);
  return ({ schema, httpPart }: { schema: unknown; httpPart?: string }): Validate => {
    const check = (httpPart === "body" ? bodies : texts).compile(schema as object);
    return (data) => {
      if (check(data)) return true;
      const error = invalidRequest(check.errors!);
      check.errors = null; // they hold the data
      return { error };
    };
  };
}
