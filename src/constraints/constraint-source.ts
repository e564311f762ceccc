/** What an output must be, as a whole. */
export type ConstraintSource =
  /** Matches an ECMAScript regular expression with the flag `u`; see `pattern-to-ir.ts` for what is supported. */
  | { readonly kind: "regex"; readonly pattern: string }
  /** Is one of 1 … 10,000 texts, none empty. */
  | { readonly kind: "choice"; readonly choices: readonly string[] }
  /** Is JSON of a schema, itself a JSON value; see `schema-to-ir.ts` for what is supported. */
  | { readonly kind: "json_schema"; readonly schema: unknown }
  /** Is a JSON object, nested to `MAX_JSON_DEPTH`. */
  | { readonly kind: "json_object" }
  /** Is valid UTF-8. */
  | { readonly kind: "utf8" };
